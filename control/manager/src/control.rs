//! Changes of the cluster.

mod request;

use std::sync::Arc;

use mesh_api::v1::{self, control_server};
use mesh_ca::{JoinToken, RootCa};
use mesh_store::{Command, Response as Answer, Sensitive, State};
use mesh_types::{Endpoint, Lookup, Name, Network, NetworkId, Node, Protocol, Role, Service, ServiceId};
use tonic::{Request, Response, Status};
use tracing::info;

use crate::{
    shared::{Shared, unexpected},
    status::unresolved,
};

/// How many tasks a refusal names.
const TASKS_NAMED: usize = 5;

/// The Control service. It checks no caller: on the listener the access table stands before it, on the daemon's unix
/// socket the socket's file mode does.
#[derive(Clone)]
pub struct Control(pub(crate) Arc<Shared>);

#[tonic::async_trait]
impl control_server::Control for Control {
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
        let network = find(state.networks(), &request.into_inner().reference)?;
        // A service on it is the better reason: its tasks follow from it.
        if !state.services().any(|service| service.networks.iter().any(|n| n.network == network.id)) {
            self.refuse_while_tasks_run(&state, network)?;
        }
        self.0.propose(Command::RemoveNetwork(network.id)).await?;
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
        let service: &Service = find(state.services(), &request.into_inner().reference)?;
        self.0.propose(Command::RemoveService(service.id)).await?;
        info!(service = %service.name, id = %service.id, "service removed");
        Ok(removed(service.id_text(), &service.name))
    }

    async fn publish(&self, request: Request<v1::PublishRequest>) -> Result<Response<v1::Service>, Status> {
        let request = request.into_inner();
        let state = self.0.state();
        let service: &Service = find(state.services(), &request.service)?;
        let port = request::port(request.port)?;
        match self.0.propose(Command::Publish { service: service.id, port }).await? {
            Answer::Published(port) => {
                info!(service = %service.name, %port, "port published");
                self.service(service.id)
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn unpublish(
        &self,
        request: Request<v1::UnpublishRequest>,
    ) -> Result<Response<v1::Service>, Status> {
        let request = request.into_inner();
        let state = self.0.state();
        let (published, protocol) = request::published(&request)?;
        let service = match request.service.as_str() {
            "" => publisher(&state, published, protocol)?,
            reference => find(state.services(), reference)?,
        };
        self.0.propose(Command::Unpublish { service: service.id, published, protocol }).await?;
        info!(service = %service.name, published, %protocol, "port closed");
        self.service(service.id)
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

    async fn remove_node(
        &self,
        request: Request<v1::RemoveRequest>,
    ) -> Result<Response<v1::RemoveResponse>, Status> {
        let state = self.0.state();
        let node: &Node = find(state.nodes(), &request.into_inner().reference)?;
        self.0.propose(Command::RemoveNode(node.id)).await?;
        info!(node = %node.id, name = %node.name, "node removed");
        Ok(removed(node.id_text(), &node.name))
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

    /// The service as it is now.
    fn service(&self, id: ServiceId) -> Result<Response<v1::Service>, Status> {
        let state = self.0.state();
        let service = state.service(id).ok_or_else(|| Status::not_found(format!("no such service: {id}")))?;
        Ok(Response::new(service.into()))
    }
}

/// The token that nodes of `role` join with.
pub(crate) fn join_token(state: &State, role: Role) -> Result<JoinToken, Status> {
    let secrets =
        state.secrets().ok_or_else(|| Status::failed_precondition("there is no cluster here yet"))?;
    let ca = RootCa::from_pem(&secrets.ca_cert_pem, &secrets.ca_key_pem);
    let ca = ca.map_err(|e| Status::internal(e.to_string()))?;
    Ok(JoinToken::new(ca.digest(), *secrets.token(role)))
}

fn find<'a, T: Lookup>(all: impl IntoIterator<Item = &'a T>, reference: &str) -> Result<&'a T, Status> {
    T::find(all, reference).map_err(|e| unresolved(&e))
}

fn publisher(state: &State, published: u16, protocol: Protocol) -> Result<&Service, Status> {
    let publishes = |s: &&Service| s.ports.iter().any(|p| (p.published, p.protocol) == (published, protocol));
    let owner = state.services().find(publishes);
    owner.ok_or_else(|| Status::not_found(format!("no service publishes {published}/{protocol}")))
}

fn place(state: &State, task: &Endpoint) -> String {
    match state.node(task.node) {
        Some(node) => format!("{} on {}", task.name, node.name),
        None => task.name.to_string(),
    }
}

fn removed(id: String, name: &Name) -> Response<v1::RemoveResponse> {
    Response::new(v1::RemoveResponse { id, name: name.to_string() })
}

/// The networks that references mean.
fn networks(state: &State, references: &[String]) -> Result<Vec<NetworkId>, Status> {
    references.iter().map(|reference| find(state.networks(), reference).map(|network| network.id)).collect()
}
