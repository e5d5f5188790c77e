//! The transition: one command on one state.

mod authority;
mod gossip;
mod init;
mod lease;
mod network;
mod node;
mod port;
mod service;

pub use lease::{DEFAULT_LEASE_GRACE, MAX_LEASE, MIN_LEASE_GRACE};
pub use network::{IPV6_MTU, MTU_RANGE};
pub use node::MAX_MANAGERS;

use mesh_types::{Name, NetworkId, Node, NodeId, Service, ServiceId};

use crate::{
    Command, GossipKeys, OLDEST_FORMAT, Rejection, Removable, Response, State,
    rejection::Kind,
    state::{Cluster, NetworkEntry},
};

/// What a command changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    /// Nothing: it was so already.
    Nothing,
    /// What [`State::view`] does not show: leases, secrets.
    Hidden,
    /// What [`State::view`] shows.
    View,
}

type Outcome = Result<(Response, Change), Rejection>;

impl State {
    /// Carries `command` out, or refuses it and changes nothing.
    pub fn apply(&mut self, command: Command) -> Result<Response, Rejection> {
        let version = self.version + 1;
        let (response, change) = match (&mut self.cluster, command) {
            (
                None,
                Command::Init {
                    cluster,
                    mut node,
                    secrets,
                    gossip_key,
                    pools,
                    ingress,
                    ingress_subnets,
                    ingress_ipv6,
                    now,
                },
            ) => {
                node.version = version;
                let response = Response::Node(node.clone());
                let pools = init::pools(&pools)?;
                let keys = GossipKeys::new(gossip_key.0, version, now);
                let mut made = Cluster::new(cluster, node, *secrets, keys, pools);
                made.create_ingress(ingress, &ingress_subnets, ingress_ipv6, now, version)?;
                self.cluster = Some(Box::new(made));
                (response, Change::View)
            }
            (None, Command::Restore(state)) => {
                // Its own versions count, but those who agreed on its format are gone.
                *self = Self { format: OLDEST_FORMAT, ..*state };
                return Ok(Response::Done);
            }
            (None, _) => return Err(Rejection::NotInitialized),
            (Some(_), Command::RaiseFormat { format }) if format > self.format => {
                self.format = format;
                (Response::Done, Change::Hidden)
            }
            (Some(_), Command::RaiseFormat { .. }) => (Response::Done, Change::Nothing),
            (Some(cluster), command) => cluster.apply(command, version)?,
        };
        if change != Change::Nothing {
            self.version += 1;
        }
        if change == Change::View {
            self.view_version = self.version;
        }
        Ok(response)
    }
}

// Every function below and in the modules checks and chooses first and changes last, behind its last `?`.
impl Cluster {
    /// `version` is the one that the change will have; what it changes is stamped with it.
    fn apply(&mut self, command: Command, version: u64) -> Outcome {
        match command {
            Command::Init { .. } | Command::Restore(_) => Err(Rejection::AlreadyInitialized),
            // The state's, not the cluster's.
            Command::RaiseFormat { .. } => Ok((Response::Done, Change::Nothing)),
            Command::AddNode(node) => self.add_node(node, version),
            Command::RemoveNode(node) => self.remove_node(node),
            Command::UpdateNode { node, change } => self.update_node(node, change, version),
            Command::CreateNetwork(new) => self.create_network(new, version),
            Command::UpdateNetwork { network, change } => self.update_network(network, change, version),
            Command::RemoveNetwork(network) => self.remove_network(network),
            Command::CreateService(new) => self.create_service(new, version),
            Command::RemoveService(service) => self.remove_service(service),
            Command::UpdateService { service, change } => self.update_service(service, change, version),
            Command::Lease { node, network, count, family } => self.lease(node, network, count, family),
            Command::LeaseAddress { node, network, address } => self.lease_address(node, network, address),
            Command::RenewLeases { node, after, changes, full } => {
                self.renew_leases(node, after, changes, full, version)
            }
            Command::TakeBackLeases { node, after } => self.take_back_leases(node, after),
            Command::SetLeaseGrace { secs } => self.set_lease_grace(secs),
            Command::RotateJoinToken { role, secret } => Ok(self.rotate_join_token(role, secret.0)),
            Command::RotateCa(new) => self.rotate_ca(*new),
            Command::CertificateInUse { node, generation } => self.certificate_in_use(node, generation),
            Command::UpdateCluster { cert_validity_secs, unlock_key } => {
                self.update_cluster(cert_validity_secs, unlock_key)
            }
            Command::RotateGossipKeys { fresh, after } => self.rotate_gossip_keys(&fresh, after, version),
            Command::StepGossipKeys { after, now } => self.step_gossip_keys(after, now, version),
            Command::GossipKeysInUse { version, nodes } => Ok(self.gossip_keys_in_use(version, nodes)),
            Command::SetGossipRotation { secs } => self.set_gossip_rotation(secs),
            Command::RemoveUnchanged { object: Removable::Node(id), version } => {
                let node = self.known_node(id)?;
                expect_version(Kind::Node, &node.name, node.version, Some(version))?;
                self.remove_node(id)
            }
            Command::RemoveUnchanged { object: Removable::Network(id), version } => {
                let network = self.known_network(id)?.network;
                expect_version(Kind::Network, &network.name, network.version, Some(version))?;
                self.remove_network(id)
            }
            Command::RemoveUnchanged { object: Removable::Service(id), version } => {
                let service = self.known_service(id)?;
                expect_version(Kind::Service, &service.name, service.version, Some(version))?;
                self.remove_service(id)
            }
        }
    }

    fn known_node(&self, id: NodeId) -> Result<&Node, Rejection> {
        self.nodes.get(&id).map(AsRef::as_ref).ok_or(Rejection::UnknownNode(id))
    }

    fn known_network(&self, id: NetworkId) -> Result<NetworkEntry<'_>, Rejection> {
        self.entry(id).ok_or(Rejection::UnknownNetwork(id))
    }

    fn known_service(&self, id: ServiceId) -> Result<&Service, Rejection> {
        self.services.get(&id).map(AsRef::as_ref).ok_or(Rejection::UnknownService(id))
    }
}

/// Names are one in DNS when they differ only in case (RFC 4343).
fn same_name(a: &Name, b: &Name) -> bool {
    a.as_str().eq_ignore_ascii_case(b.as_str())
}

/// Refuses a change that was made for another version of the object.
fn expect_version(kind: Kind, name: &Name, is: u64, expected: Option<u64>) -> Result<(), Rejection> {
    match expected {
        Some(expected) if expected != is => {
            Err(Rejection::Changed { kind, name: name.clone(), expected, version: is })
        }
        _ => Ok(()),
    }
}

/// Refuses a name that one of `taken` has.
fn free_name<'a>(
    kind: Kind,
    name: &Name,
    taken: impl IntoIterator<Item = &'a Name>,
) -> Result<(), Rejection> {
    match taken.into_iter().find(|other| same_name(other, name)) {
        Some(other) => Err(Rejection::NameTaken { kind, name: other.clone() }),
        None => Ok(()),
    }
}
