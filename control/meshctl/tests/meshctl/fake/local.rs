//! The fake daemon's Local service: what it answers for itself.

use mesh_api::v1::{self, local_server::Local};
use tonic::{Request, Response, Status};

use super::{Answers, Caller, Service};
use crate::data::{self, NODE_1, NODE_2, NODE_3, SPARE, TASK_WEB_1};

#[tonic::async_trait]
impl Local for Service {
    async fn open_dashboard(
        &self,
        request: Request<v1::OpenDashboardRequest>,
    ) -> Result<Response<v1::OpenDashboardResponse>, Status> {
        let answer = v1::OpenDashboardResponse {
            address: "127.0.0.1:7380".to_owned(),
            url: "https://127.0.0.1:7380/#login=once".to_owned(),
            fingerprint: "AB:CD:EF".to_owned(),
            login_secs: 120,
            idle_secs: 900,
        };
        self.change(request, answer)
    }

    async fn trace(&self, request: Request<v1::TraceRequest>) -> Result<Response<v1::TraceResponse>, Status> {
        let dropped = request.get_ref().port == 81;
        self.change(request, data::trace(dropped))
    }

    type WatchStream = Answers<v1::WatchEvent>;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let events = data::watched(request.get_ref().capture.is_some()).into_iter().map(Ok);
        self.change(request, Box::pin(tonic::codegen::tokio_stream::iter(events)))
    }

    type ListFlowsStream = Answers<v1::ListFlowsResponse>;

    async fn list_flows(
        &self,
        request: Request<v1::ListFlowsRequest>,
    ) -> Result<Response<Self::ListFlowsStream>, Status> {
        let sums = v1::FlowSums { seen: 9, matched: 2 };
        let last = v1::ListFlowsResponse { flows: Vec::new(), sums: Some(sums) };
        let parts = vec![v1::ListFlowsResponse { flows: data::flows(), sums: None }, last];
        self.change(request, Box::pin(tonic::codegen::tokio_stream::iter(parts.into_iter().map(Ok))))
    }

    async fn init(&self, request: Request<v1::InitRequest>) -> Result<Response<v1::InitResponse>, Status> {
        let answer = v1::InitResponse {
            cluster_id: data::CLUSTER.to_owned(),
            node_id: NODE_1.to_owned(),
            worker_token: "MESHTKN-1-abc-def".to_owned(),
            managers: vec!["192.168.1.1:2377".to_owned()],
        };
        self.change(request, answer)
    }

    async fn join_cluster(
        &self,
        request: Request<v1::JoinClusterRequest>,
    ) -> Result<Response<v1::JoinClusterResponse>, Status> {
        let answer = v1::JoinClusterResponse {
            cluster_id: data::CLUSTER.to_owned(),
            node_id: NODE_2.to_owned(),
            role: v1::Role::Worker.into(),
            catching_up: false,
        };
        self.change(request, answer)
    }

    async fn restore_cluster(
        &self,
        request: Request<v1::RestoreClusterRequest>,
    ) -> Result<Response<v1::InitResponse>, Status> {
        let answer = v1::InitResponse {
            cluster_id: data::CLUSTER.to_owned(),
            node_id: NODE_1.to_owned(),
            worker_token: "MESHTKN-1-abc-def".to_owned(),
            managers: vec!["192.168.1.1:2377".to_owned()],
        };
        self.change(request, answer)
    }

    async fn leave_cluster(
        &self,
        request: Request<v1::LeaveClusterRequest>,
    ) -> Result<Response<v1::LeaveClusterResponse>, Status> {
        self.change(request, v1::LeaveClusterResponse {})
    }

    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        if self.0.lock().unwrap().inactive {
            return Ok(Response::new(v1::StatusResponse {
                version: "0.1.0".to_owned(),
                state: "inactive".to_owned(),
                ..Default::default()
            }));
        }
        Ok(Response::new(data::status()))
    }

    async fn dump_gossip(
        &self,
        _: Request<v1::DumpGossipRequest>,
    ) -> Result<Response<v1::DumpGossipResponse>, Status> {
        Ok(Response::new(data::gossip_dump()))
    }

    async fn get_snapshot(
        &self,
        request: Request<v1::GetSnapshotRequest>,
    ) -> Result<Response<v1::NodeSnapshot>, Status> {
        let looks = self.asked_for("GetSnapshotRequest");
        self.change(request, data::snapshot(looks as u64))
    }

    async fn get_view(
        &self,
        _: Request<v1::GetViewRequest>,
    ) -> Result<Response<v1::GetViewResponse>, Status> {
        let script = self.0.lock().unwrap();
        if script.inactive {
            return Err(Status::failed_precondition("this node is not in a cluster"));
        }
        let mut view = data::view();
        if script.nonsense {
            view.networks[0].vni = 0;
        }
        if script.hostile {
            let text = "\u{1b}]0;x\u{7}\r\n\u{202e}b".to_owned();
            view.networks[2].labels.insert("team".to_owned(), text);
        }
        if script.spare {
            let name = "spare".to_owned();
            let other = view.networks[0].clone();
            view.networks.push(v1::Network { id: SPARE.to_owned(), name, ingress: false, ..other });
        }
        Ok(Response::new(v1::GetViewResponse {
            view: Some(view),
            this_node: NODE_1.to_owned(),
            listeners: data::listeners(),
            warnings: script.warnings.clone(),
            managers: data::managers(),
            statuses: Vec::new(),
        }))
    }

    async fn list_tasks(
        &self,
        _: Request<v1::ListTasksRequest>,
    ) -> Result<Response<v1::ListTasksResponse>, Status> {
        let member =
            |id: &str, state: v1::MemberState| v1::Member { node_id: id.to_owned(), state: state.into() };
        Ok(Response::new(v1::ListTasksResponse {
            endpoints: data::endpoints(),
            members: vec![member(NODE_2, v1::MemberState::Alive), member(NODE_3, v1::MemberState::Down)],
            local: vec![v1::LocalTask {
                task_id: TASK_WEB_1.to_owned(),
                namespace: "pid 4711".to_owned(),
                pid: 4711,
                ..v1::LocalTask::default()
            }],
            reserved: Vec::new(),
        }))
    }

    async fn attach(
        &self,
        request: Request<v1::AttachRequest>,
    ) -> Result<Response<v1::AttachResponse>, Status> {
        let mut resolv_conf = Vec::new();
        if let Some(v1::attach_request::Namespace::Pid(pid)) = request.get_ref().namespace {
            let link = |kind: &str| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
            let caller = Caller { pid, network_namespace: link("net"), mount_namespace: link("mnt") };
            let mut script = self.0.lock().unwrap();
            script.callers.push(caller);
            resolv_conf = script.resolv_conf.clone().into_bytes();
        }
        let answer = v1::AttachResponse {
            task_id: TASK_WEB_1.to_owned(),
            name: "web.1".to_owned(),
            endpoints: data::endpoints().into_iter().take(1).collect(),
            nameserver: "127.0.0.11".to_owned(),
            search: Vec::new(),
            resolv_conf,
            ..v1::AttachResponse::default()
        };
        self.change(request, answer)
    }

    async fn detach(
        &self,
        request: Request<v1::DetachRequest>,
    ) -> Result<Response<v1::DetachResponse>, Status> {
        self.change(
            request,
            v1::DetachResponse { task_id: TASK_WEB_1.to_owned(), name: "web.1".to_owned(), ended: true },
        )
    }

    async fn ping(&self, request: Request<v1::PingRequest>) -> Result<Response<v1::PingResponse>, Status> {
        let request = request.into_inner();
        if request.to != "n2" {
            return Err(Status::not_found(format!("there is no node {}", request.to)));
        }
        Ok(Response::new(v1::PingResponse {
            name: request.to,
            path: "data path, from 192.168.0.1".to_owned(),
            address: "192.168.0.2".to_owned(),
            answered: request.packet_size <= 1500,
            micros: 1234,
            too_large: false,
        }))
    }

    async fn reach(&self, _: Request<v1::ReachRequest>) -> Result<Response<v1::ReachResponse>, Status> {
        Ok(Response::new(v1::ReachResponse {
            nodes: vec![v1::NodeReach {
                node_id: NODE_2.to_owned(),
                open: vec!["gossip-udp".to_owned(), "gossip-tcp".to_owned()],
                open_back: vec!["gossip-tcp".to_owned(), "manager".to_owned()],
                closed_back: vec!["gossip-udp".to_owned()],
                version: env!("CARGO_PKG_VERSION").to_owned(),
                ..Default::default()
            }],
            ..Default::default()
        }))
    }

    async fn reserve(
        &self,
        request: Request<v1::ReserveRequest>,
    ) -> Result<Response<v1::ReserveResponse>, Status> {
        self.change(request, v1::ReserveResponse::default())
    }

    async fn change_log(
        &self,
        request: Request<v1::ChangeLogRequest>,
    ) -> Result<Response<v1::LogStatus>, Status> {
        let asked = request.get_ref().clone();
        let in_force = if asked.directives.is_empty() { "info".to_owned() } else { asked.directives };
        let left_secs = Some(asked.for_secs).filter(|secs| *secs > 0);
        let (configured, place) = ("info".to_owned(), "journald".to_owned());
        self.change(request, v1::LogStatus { in_force, configured, left_secs, place, lost: 2 })
    }

    async fn set_aliases(
        &self,
        request: Request<v1::SetAliasesRequest>,
    ) -> Result<Response<v1::LocalTask>, Status> {
        self.change(request, v1::LocalTask::default())
    }

    async fn release(
        &self,
        request: Request<v1::ReleaseRequest>,
    ) -> Result<Response<v1::ReleaseResponse>, Status> {
        self.change(request, v1::ReleaseResponse::default())
    }

    async fn explain_name(
        &self,
        request: Request<v1::ExplainNameRequest>,
    ) -> Result<Response<v1::ExplainNameResponse>, Status> {
        let request = request.into_inner();
        self.0.lock().unwrap().asked.push(format!("{request:?}"));
        if request.task != "web.1" {
            return Err(Status::not_found(format!("no such task on this node: {}", request.task)));
        }
        let lookup = |name: &str, r#type: &str| v1::Lookup {
            name: name.to_owned(),
            r#type: r#type.to_owned(),
            ..v1::Lookup::default()
        };
        let lookups = vec![
            v1::Lookup {
                code: "NXDOMAIN".to_owned(),
                network: "prod".to_owned(),
                why: "network prod has no such name, and nobody else is asked for its names".to_owned(),
                ..lookup("db.prod.", "A")
            },
            v1::Lookup {
                code: "NOERROR".to_owned(),
                records: vec!["db.corp.example. 60 IN A 192.0.2.7".to_owned()],
                why: "not known here; asked outside".to_owned(),
                upstream: "192.0.2.53:53, asked from the task".to_owned(),
                ..lookup("db.corp.example.", "A")
            },
        ];
        Ok(Response::new(v1::ExplainNameResponse { task: request.task, lookups }))
    }

    async fn get_task(
        &self,
        request: Request<v1::GetTaskRequest>,
    ) -> Result<Response<v1::LocalTask>, Status> {
        let task = self.task(&request.get_ref().reference)?;
        self.0.lock().unwrap().asked.push(format!("{:?}", request.into_inner()));
        Ok(Response::new(task))
    }

    async fn update_task(
        &self,
        request: Request<v1::UpdateTaskRequest>,
    ) -> Result<Response<v1::LocalTask>, Status> {
        let task = self.task(&request.get_ref().reference)?;
        let weight = request.get_ref().weight;
        self.change(request, v1::LocalTask { weight, flows: None, ..task })
    }

    async fn drain_task(
        &self,
        request: Request<v1::DrainTaskRequest>,
    ) -> Result<Response<v1::LocalTask>, Status> {
        self.0.lock().unwrap().draining = true;
        let task = self.task(&request.get_ref().reference)?;
        self.change(request, v1::LocalTask { flows: None, ..task })
    }

    async fn unlock(
        &self,
        request: Request<v1::UnlockRequest>,
    ) -> Result<Response<v1::UnlockResponse>, Status> {
        self.change(request, v1::UnlockResponse::default())
    }

    async fn connect_network(
        &self,
        request: Request<v1::ConnectNetworkRequest>,
    ) -> Result<Response<v1::LocalTask>, Status> {
        let task = self.task(&request.get_ref().task)?;
        self.change(request, task)
    }

    async fn disconnect_network(
        &self,
        request: Request<v1::DisconnectNetworkRequest>,
    ) -> Result<Response<v1::LocalTask>, Status> {
        let task = self.task(&request.get_ref().task)?;
        self.change(request, task)
    }
}
