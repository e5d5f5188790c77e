//! Changes of the cluster.

mod request;

use std::sync::Arc;

use mesh_api::v1::{self, control_server};
use mesh_ca::JoinToken;
use mesh_store::{Command, NodeChange, Removable, Response as Answer, Sensitive, ServiceChange, State};
use mesh_types::{Endpoint, Lookup, Name, Network, Node, PortFilter, Role, Service};
use tonic::{Request, Response, Status};
use tracing::info;

use crate::{
    backup::Backup,
    cluster::join_token,
    connectivity::{self, TestReports},
    events::EventStream,
    identity::decided,
    membership, orders,
    shared::{Shared, unexpected, unix_now},
    status::{invalid, unresolved},
    watching::{Traffic, TrafficStream},
};

/// How many tasks a refusal names.
const TASKS_NAMED: usize = 5;

/// The Control service. It checks no caller: on the listener the access table stands before it, on the daemon's unix
/// socket the socket's file mode does.
#[derive(Clone)]
pub struct Control(pub(crate) Arc<Shared>);

#[tonic::async_trait]
impl control_server::Control for Control {
    type EventsStream = EventStream;
    type TestConnectivityStream = TestReports;
    type WatchTrafficStream = TrafficStream;

    async fn watch_traffic(
        &self,
        request: Request<v1::WatchTrafficRequest>,
    ) -> Result<Response<TrafficStream>, Status> {
        Ok(Response::new(match request.into_inner().all_managers {
            true => Traffic::new(self.0.clone()).stream(),
            false => self.0.watching.stream(),
        }))
    }

    async fn order_task(&self, request: Request<v1::TaskOrder>) -> Result<Response<v1::OrderReport>, Status> {
        orders::order(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn test_connectivity(
        &self,
        request: Request<v1::TestConnectivityRequest>,
    ) -> Result<Response<TestReports>, Status> {
        connectivity::test(self.clone(), request.into_inner()).await.map(Response::new)
    }

    async fn events(&self, request: Request<v1::EventsRequest>) -> Result<Response<EventStream>, Status> {
        Ok(Response::new(self.0.events.stream(request.into_inner().since_millis)))
    }

    async fn get_progress(
        &self,
        request: Request<v1::ProgressRequest>,
    ) -> Result<Response<v1::ProgressResponse>, Status> {
        let programmed = self.0.reports.with_applied(request.into_inner().version);
        let state = self.0.state();
        let nodes = state.nodes().map(|node| {
            let formats = self.0.reports.formats(node.id);
            v1::NodeProgress {
                node_id: node.id.to_string(),
                name: node.name.to_string(),
                programmed: programmed.contains(&node.id),
                status: self.0.status_of(node.id).as_str().to_owned(),
                oldest_format: formats.as_ref().map_or(0, |formats| *formats.start()),
                newest_format: formats.as_ref().map_or(0, |formats| *formats.end()),
            }
        });
        Ok(Response::new(v1::ProgressResponse { nodes: nodes.collect() }))
    }

    async fn update_network(
        &self,
        request: Request<v1::UpdateNetworkRequest>,
    ) -> Result<Response<v1::Network>, Status> {
        let request = request.into_inner();
        let state = self.0.state();
        let network: &Network = find(state.networks(), &request.network)?;
        let change = request::network_change(request);
        match self.0.propose(Command::UpdateNetwork { network: network.id, change }).await? {
            Answer::Network(network) => {
                info!(network = %network.name, id = %network.id, "network updated");
                Ok(Response::new((&network).into()))
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn create_network(
        &self,
        request: Request<v1::CreateNetworkRequest>,
    ) -> Result<Response<v1::Network>, Status> {
        let new = request::network(request.into_inner())?;
        match self.0.propose(Command::CreateNetwork(new)).await? {
            Answer::Network(network) => {
                info!(network = %network.name, id = %network.id, vni = %network.vni, "network created");
                Ok(Response::new((&network).into()))
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn remove_network(
        &self,
        request: Request<v1::RemoveRequest>,
    ) -> Result<Response<v1::RemoveResponse>, Status> {
        let state = self.0.state();
        let v1::RemoveRequest { reference, expected_version } = request.into_inner();
        let network = find(state.networks(), &reference)?;
        // A service on it is the better reason: its tasks follow from it.
        if !state.services().any(|service| service.networks.iter().any(|n| n.network == network.id)) {
            self.refuse_while_tasks_run(&state, network)?;
        }
        let object = Removable::Network(network.id);
        self.0.propose(removal(object, expected_version)).await?;
        info!(network = %network.name, id = %network.id, "network removed");
        Ok(removed(network.id_text(), &network.name))
    }

    async fn create_service(
        &self,
        request: Request<v1::CreateServiceRequest>,
    ) -> Result<Response<v1::Service>, Status> {
        let new = request::service(request.into_inner(), &self.0.state())?;
        match self.0.propose(Command::CreateService(new)).await? {
            Answer::Service(service) => {
                info!(service = %service.name, id = %service.id, "service created");
                Ok(Response::new((&service).into()))
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn remove_service(
        &self,
        request: Request<v1::RemoveRequest>,
    ) -> Result<Response<v1::RemoveResponse>, Status> {
        let state = self.0.state();
        let v1::RemoveRequest { reference, expected_version } = request.into_inner();
        let service: &Service = find(state.services(), &reference)?;
        let object = Removable::Service(service.id);
        self.0.propose(removal(object, expected_version)).await?;
        info!(service = %service.name, id = %service.id, "service removed");
        Ok(removed(service.id_text(), &service.name))
    }

    async fn publish(&self, request: Request<v1::PublishRequest>) -> Result<Response<v1::Service>, Status> {
        let request = request.into_inner();
        let state = self.0.state();
        let service: &Service = find(state.services(), &request.service)?;
        let add_ports = request::ports(request.ports)?;
        if add_ports.is_empty() {
            return Err(invalid("ports", "none given; write PUBLISHED:TARGET, for example 8080:80"));
        }
        let expected_version = request.expected_version;
        self.change(service, ServiceChange { expected_version, add_ports, ..ServiceChange::default() }).await
    }

    async fn unpublish(
        &self,
        request: Request<v1::UnpublishRequest>,
    ) -> Result<Response<v1::Service>, Status> {
        let request = request.into_inner();
        let state = self.0.state();
        let remove_ports = request::filters(&request.ports)?;
        if remove_ports.is_empty() {
            return Err(invalid("ports", "none given; write for example 8080 or 8080/udp"));
        }
        let service = match request.service.as_str() {
            "" => publisher(&state, &remove_ports)?,
            reference => find(state.services(), reference)?,
        };
        let expected_version = request.expected_version;
        self.change(service, ServiceChange { expected_version, remove_ports, ..ServiceChange::default() })
            .await
    }

    async fn update_service(
        &self,
        request: Request<v1::UpdateServiceRequest>,
    ) -> Result<Response<v1::Service>, Status> {
        let request = request.into_inner();
        let state = self.0.state();
        let service: &Service = find(state.services(), &request.service)?;
        self.change(service, request::change(request, &state)?).await
    }

    async fn get_join_token(
        &self,
        request: Request<v1::JoinTokenRequest>,
    ) -> Result<Response<v1::JoinTokenResponse>, Status> {
        let request = request.into_inner();
        let role = Role::try_from(request.role())?;
        if request.rotate {
            let secret = Sensitive(JoinToken::random_secret());
            self.0.propose(Command::RotateJoinToken { role, secret }).await?;
            info!(%role, "join token rotated");
        }
        let state = self.0.state();
        let token = join_token(&state, role)?.to_string();
        Ok(Response::new(v1::JoinTokenResponse { token, managers: self.0.manager_list(&state) }))
    }

    async fn update_node(
        &self,
        request: Request<v1::UpdateNodeRequest>,
    ) -> Result<Response<v1::Node>, Status> {
        let request = request.into_inner();
        let state = self.0.state();
        let node: &Node = find(state.nodes(), &request.node)?;
        let availability = match request.availability() {
            v1::Availability::Unspecified => None,
            given => Some(given.try_into()?),
        };
        let change = NodeChange {
            availability,
            set_labels: request.set_labels,
            remove_labels: request.remove_labels,
            expected_version: request.expected_version,
            ..NodeChange::default()
        };
        match self.0.propose(Command::UpdateNode { node: node.id, change }).await? {
            Answer::Node(node) => {
                info!(node = %node.id, name = %node.name, availability = %node.availability, "node updated");
                Ok(Response::new((&node).into()))
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn remove_node(
        &self,
        request: Request<v1::RemoveNodeRequest>,
    ) -> Result<Response<v1::RemoveResponse>, Status> {
        let state = self.0.state();
        let v1::RemoveNodeRequest { reference, force, expected_version } = request.into_inner();
        let node: &Node = find(state.nodes(), &reference)?;
        let status = self.0.status_of(node.id);
        if status.may_run() && !force {
            let name = &node.name;
            return Err(Status::failed_precondition(format!(
                "node {name} is {}: run `meshctl leave` there, or use --force if it is known to be off: its tasks' \
                 addresses are given to others",
                status.as_str()
            )));
        }
        if !force {
            membership::refuse_loss(&self.0, node).await?;
        }
        self.0.propose(removal(Removable::Node(node.id), expected_version)).await?;
        info!(node = %node.id, name = %node.name, "node removed");
        Ok(removed(node.id_text(), &node.name))
    }

    async fn set_role(&self, request: Request<v1::SetRoleRequest>) -> Result<Response<v1::Node>, Status> {
        membership::set_role(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn backup(&self, _: Request<v1::BackupRequest>) -> Result<Response<v1::BackupResponse>, Status> {
        let state = decided(&self.0).await?;
        let backup = Backup { made_at: unix_now(), state: (*state).clone() }.encode();
        info!(bytes = backup.len(), "backup made");
        Ok(Response::new(v1::BackupResponse { backup }))
    }
}

impl Control {
    fn refuse_while_tasks_run(&self, state: &State, network: &Network) -> Result<(), Status> {
        let mut tasks = self.0.endpoints.endpoints();
        tasks.retain(|endpoint| endpoint.network == network.id);
        tasks.sort_by(|a, b| a.name.cmp(&b.name));
        if tasks.is_empty() {
            return Ok(());
        }
        let named =
            tasks.iter().take(TASKS_NAMED).map(|task| place(state, task)).collect::<Vec<_>>().join(", ");
        let rest = match tasks.len().saturating_sub(TASKS_NAMED) {
            0 if tasks.len() == 1 => "; end or detach it".to_owned(),
            0 => "; end or detach them".to_owned(),
            more => format!(" and {more} more; end or detach them"),
        };
        let tasks = if tasks.len() == 1 { "task" } else { "tasks" };
        let name = &network.name;
        Err(Status::failed_precondition(format!("network {name} is used by {tasks} {named}{rest} first")))
    }

    /// Changes a service; answers with it as it then is.
    async fn change(&self, before: &Service, change: ServiceChange) -> Result<Response<v1::Service>, Status> {
        match self.0.propose(Command::UpdateService { service: before.id, change }).await? {
            Answer::Service(now) => {
                let ports = now.ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
                info!(service = %now.name, id = %now.id, %ports, "service updated");
                Ok(Response::new((&now).into()))
            }
            other => Err(unexpected(&other)),
        }
    }
}

fn find<'a, T: Lookup>(all: impl IntoIterator<Item = &'a T>, reference: &str) -> Result<&'a T, Status> {
    T::find(all, reference).map_err(|e| unresolved(&e))
}

/// The only service that publishes any of the ports.
fn publisher<'a>(state: &'a State, wanted: &[PortFilter]) -> Result<&'a Service, Status> {
    let publishes = |s: &&Service| wanted.iter().any(|filter| s.ports.iter().any(|p| filter.matches(p)));
    let owners: Vec<&Service> = state.services().filter(publishes).collect();
    let ports = || wanted.iter().map(PortFilter::to_string).collect::<Vec<_>>().join(", ");
    match owners.as_slice() {
        [] => Err(Status::not_found(format!("no service publishes {}", ports()))),
        [owner] => Ok(owner),
        many => {
            let names = many.iter().map(|s| s.name.as_str()).collect::<Vec<_>>().join(", ");
            let text = format!("several services publish {}: {names}; name the service too", ports());
            Err(Status::invalid_argument(text))
        }
    }
}

fn place(state: &State, task: &Endpoint) -> String {
    match state.node(task.node) {
        Some(node) => format!("{} on {}", task.name, node.name),
        None => task.name.to_string(),
    }
}

fn removal(object: Removable, expected_version: Option<u64>) -> Command {
    match (object, expected_version) {
        (_, Some(version)) => Command::RemoveUnchanged { object, version },
        (Removable::Network(id), None) => Command::RemoveNetwork(id),
        (Removable::Service(id), None) => Command::RemoveService(id),
        (Removable::Node(id), None) => Command::RemoveNode(id),
    }
}

fn removed(id: String, name: &Name) -> Response<v1::RemoveResponse> {
    Response::new(v1::RemoveResponse { id, name: name.to_string() })
}
