//! The fake daemon's Control service: what managers answer.

use mesh_api::v1::{self, control_server::Control};
use tonic::{Request, Response, Status};

use super::{Answers, Service};
use crate::data::{self, NODE_1, NODE_2, NODE_3, PROD, WEB};

#[tonic::async_trait]
impl Control for Service {
    type WatchTrafficStream = Answers<v1::TrafficReport>;

    async fn watch_traffic(
        &self,
        _: Request<v1::WatchTrafficRequest>,
    ) -> Result<Response<Self::WatchTrafficStream>, Status> {
        Err(Status::unimplemented("no verb asks for it"))
    }

    async fn order_task(&self, _: Request<v1::TaskOrder>) -> Result<Response<v1::OrderReport>, Status> {
        Err(Status::unimplemented("no verb asks for it"))
    }

    async fn create_network(
        &self,
        request: Request<v1::CreateNetworkRequest>,
    ) -> Result<Response<v1::Network>, Status> {
        let network = data::view().networks.into_iter().find(|network| network.id == PROD);
        self.change(request, network.unwrap())
    }

    async fn get_progress(
        &self,
        request: Request<v1::ProgressRequest>,
    ) -> Result<Response<v1::ProgressResponse>, Status> {
        let mut script = self.0.lock().unwrap();
        script.asked.push(format!("{:?}", request.into_inner()));
        let late =
            script.asked.iter().filter(|asked| asked.starts_with("ProgressRequest")).count() <= script.late;
        let node = |node_id: &str, name: &str, programmed, status: &str| v1::NodeProgress {
            node_id: node_id.to_owned(),
            name: name.to_owned(),
            programmed,
            status: status.to_owned(),
            ..v1::NodeProgress::default()
        };
        let nodes = vec![
            node(NODE_1, "n1", true, "ready"),
            node(NODE_2, "n2", !late, "ready"),
            node(NODE_3, "n3", false, "down"),
        ];
        Ok(Response::new(v1::ProgressResponse { nodes }))
    }

    async fn remove_network(
        &self,
        request: Request<v1::RemoveRequest>,
    ) -> Result<Response<v1::RemoveResponse>, Status> {
        self.remove(request)
    }

    async fn create_service(
        &self,
        request: Request<v1::CreateServiceRequest>,
    ) -> Result<Response<v1::Service>, Status> {
        self.change(request, self.service("web"))
    }

    async fn remove_service(
        &self,
        request: Request<v1::RemoveRequest>,
    ) -> Result<Response<v1::RemoveResponse>, Status> {
        self.remove(request)
    }

    async fn publish(&self, request: Request<v1::PublishRequest>) -> Result<Response<v1::Service>, Status> {
        let mut service = self.service("web");
        assert_eq!(service.id, WEB);
        let mut ports = request.get_ref().ports.clone();
        for (number, port) in (30_000..).zip(&mut ports) {
            port.published = if port.published == 0 { number } else { port.published };
        }
        service.ports.extend(ports);
        self.change(request, service)
    }

    async fn unpublish(
        &self,
        request: Request<v1::UnpublishRequest>,
    ) -> Result<Response<v1::Service>, Status> {
        self.change(request, self.service("web"))
    }

    async fn update_service(
        &self,
        request: Request<v1::UpdateServiceRequest>,
    ) -> Result<Response<v1::Service>, Status> {
        self.change(request, self.service("web"))
    }

    type TestConnectivityStream = std::pin::Pin<
        Box<dyn tonic::codegen::tokio_stream::Stream<Item = Result<v1::TestReport, Status>> + Send>,
    >;

    async fn test_connectivity(
        &self,
        _: Request<v1::TestConnectivityRequest>,
    ) -> Result<Response<Self::TestConnectivityStream>, Status> {
        let result = |to: &str, check: &str, failure: &str| v1::TestResult {
            to_node: to.to_owned(),
            check: check.to_owned(),
            failure: failure.to_owned(),
        };
        let report = |node: &str, stage: &str, results| v1::TestReport {
            test_id: "1".to_owned(),
            node_id: node.to_owned(),
            stage: stage.to_owned(),
            results,
            ..Default::default()
        };
        let order = v1::TestOrder {
            id: "1".to_owned(),
            nodes: vec![NODE_1.to_owned(), NODE_2.to_owned()],
            ..Default::default()
        };
        let reports = [
            v1::TestReport { order: Some(order), ..report(NODE_1, "begun", Vec::new()) },
            report(
                NODE_1,
                "done",
                vec![result(NODE_1, "vip", ""), result(NODE_2, "tcp", "no answer in time")],
            ),
            v1::TestReport { failure: "no room".to_owned(), ..report(NODE_2, "failed", Vec::new()) },
        ];
        Ok(Response::new(Box::pin(tonic::codegen::tokio_stream::iter(reports.map(Ok)))))
    }

    type EventsStream =
        std::pin::Pin<Box<dyn tonic::codegen::tokio_stream::Stream<Item = Result<v1::Event, Status>> + Send>>;

    async fn events(
        &self,
        request: Request<v1::EventsRequest>,
    ) -> Result<Response<Self::EventsStream>, Status> {
        let mut events: Vec<_> = data::events().into_iter().map(Ok).collect();
        events.push(Err(Status::unavailable("this manager stops")));
        self.change(request, Box::pin(tonic::codegen::tokio_stream::iter(events)))
    }

    async fn update_network(
        &self,
        request: Request<v1::UpdateNetworkRequest>,
    ) -> Result<Response<v1::Network>, Status> {
        let network = data::view().networks.into_iter().find(|network| network.id == PROD);
        self.change(request, network.unwrap())
    }

    async fn set_role(&self, request: Request<v1::SetRoleRequest>) -> Result<Response<v1::Node>, Status> {
        let asked = request.get_ref().clone();
        let node = data::view().nodes.into_iter().find(|node| node.name == asked.node);
        let node = node.ok_or_else(|| Status::not_found(format!("no such node: {}", asked.node)))?;
        self.change(request, v1::Node { role: asked.role, ..node })
    }

    async fn backup(
        &self,
        request: Request<v1::BackupRequest>,
    ) -> Result<Response<v1::BackupResponse>, Status> {
        self.change(request, v1::BackupResponse { backup: b"meshd backup\n...".to_vec() })
    }

    async fn get_join_token(
        &self,
        request: Request<v1::JoinTokenRequest>,
    ) -> Result<Response<v1::JoinTokenResponse>, Status> {
        let answer = v1::JoinTokenResponse {
            token: "MESHTKN-1-abc-def".to_owned(),
            managers: vec!["192.168.1.1:2377".to_owned(), "192.168.1.4:2377".to_owned()],
        };
        self.change(request, answer)
    }

    async fn update_node(
        &self,
        request: Request<v1::UpdateNodeRequest>,
    ) -> Result<Response<v1::Node>, Status> {
        let node = data::view().nodes.into_iter().find(|node| node.id == NODE_2);
        self.change(request, node.unwrap())
    }

    async fn remove_node(
        &self,
        request: Request<v1::RemoveNodeRequest>,
    ) -> Result<Response<v1::RemoveResponse>, Status> {
        let name = request.get_ref().reference.clone();
        if name == "used" {
            return Err(Status::failed_precondition("node used is ready"));
        }
        self.change(request, v1::RemoveResponse { id: PROD.to_owned(), name })
    }
}
