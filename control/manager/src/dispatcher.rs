//! What members ask of a manager: the decided state, and address leases.

use std::{collections::BTreeMap, net::IpAddr, pin::Pin, sync::Arc};

use futures::Stream;
use mesh_api::{
    parse_id,
    v1::{self, dispatcher_server},
};
use mesh_store::{Command, LeaseChange, NodeChange, Response as Answer, State};
use mesh_types::{Family, Listener, NetworkId, NodeId};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use tracing::info;

use crate::{
    access::Caller,
    shared::{Shared, unexpected},
    status::invalid,
};

mod session;

pub(crate) use session::Follower;

/// The most listeners that one node may tell of.
const MAX_LISTENERS: usize = 1024;
/// The most tasks, services and pairs that one node may report traffic of.
const MAX_TRAFFIC: usize = 16_384;

/// The service behind [`crate::Manager`]'s listener.
pub(crate) struct Dispatcher {
    pub shared: Arc<Shared>,
}

type NodeStates = Pin<Box<dyn Stream<Item = Result<v1::NodeState, Status>> + Send>>;

#[tonic::async_trait]
impl dispatcher_server::Dispatcher for Dispatcher {
    type SessionStream = NodeStates;

    async fn session(&self, request: Request<v1::SessionRequest>) -> Result<Response<NodeStates>, Status> {
        let node = Caller::of(&request)?.node;
        let stop = self.shared.touch.session().await;
        let stop =
            stop.ok_or_else(|| Status::unavailable("this manager reaches no majority of the managers"))?;
        // One message at a time: a slow node gets the newest state next, not all that it missed.
        let (states, stream) = mpsc::channel(1);
        let changes = self.shared.state.clone();
        let listeners = self.shared.reports.watch();
        let running = self.shared.reports.session(node);
        let follower = Follower {
            place: self.shared.place,
            node,
            changes: request.get_ref().changes,
            tests: self.shared.tests.watch(),
            orders: self.shared.orders.watch(),
            traffic: self.shared.watching.every(),
        };
        tokio::spawn(async move {
            follower.serve(changes, listeners, states, stop).await;
            drop(running);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn lease(&self, request: Request<v1::LeaseRequest>) -> Result<Response<v1::LeaseResponse>, Status> {
        let node = Caller::of(&request)?.node;
        let request = request.into_inner();
        let network = parse_id("network_id", &request.network_id)?;
        let command = match request.address.as_str() {
            "" => Command::Lease { node, network, count: request.count, family: family(&request)? },
            text => Command::LeaseAddress { node, network, address: address(text)? },
        };
        match self.shared.propose(command).await? {
            Answer::Leased(addresses) => {
                Ok(Response::new(v1::LeaseResponse { addresses: texts(&addresses) }))
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn renew_leases(
        &self,
        request: Request<v1::RenewLeasesRequest>,
    ) -> Result<Response<v1::RenewLeasesResponse>, Status> {
        let node = Caller::of(&request)?.node;
        let v1::RenewLeasesRequest { after, changes, full } = request.into_inner();
        let changes = changes.into_iter().map(lease_change).collect::<Result<_, _>>()?;
        match self.shared.propose(Command::RenewLeases { node, after, changes, full }).await? {
            Answer::Renewed { renewal, done, grace_secs, lost, held, version } => {
                let state = self.shared.state();
                let held = held.unwrap_or_default();
                let mut lost_by: BTreeMap<NetworkId, Vec<IpAddr>> = BTreeMap::new();
                for (network, address) in lost {
                    lost_by.entry(network).or_default().push(address);
                }
                Ok(Response::new(v1::RenewLeasesResponse {
                    renewal,
                    done,
                    grace_secs,
                    version,
                    held: held.iter().map(|(id, all)| network_lease(&state, *id, all)).collect(),
                    lost: lost_by.iter().map(|(id, all)| network_lease(&state, *id, all)).collect(),
                }))
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn report(&self, request: Request<v1::NodeReport>) -> Result<Response<v1::ReportResponse>, Status> {
        let node = Caller::of(&request)?.node;
        let request = request.into_inner();
        if request.listeners.len() > MAX_LISTENERS {
            return Err(invalid("listeners", format!("more than {MAX_LISTENERS}")));
        }
        let listeners = request.listeners.into_iter().map(Listener::try_from).collect::<Result<_, _>>()?;
        self.shared.reports.set(node, listeners);
        if request.gossip_keys_version > 0 {
            self.shared.reports.set_gossip_keys(node, request.gossip_keys_version);
        }
        if request.applied_version > 0 {
            self.shared.reports.set_applied(node, request.applied_version);
        }
        if request.newest_format > 0 {
            self.shared.reports.set_formats(node, request.oldest_format..=request.newest_format);
        }
        // Where it is reached goes first: more hangs on it.
        if !request.advertise_addr.is_empty() {
            let address = address(&request.advertise_addr)?.to_canonical();
            self.shared.follow_advertise_addr(node, address).await?;
        }
        if !request.data_path_addr.is_empty() {
            let address = address(&request.data_path_addr)?.to_canonical();
            self.follow_data_path_addr(node, address).await?;
        }
        Ok(Response::new(v1::ReportResponse {}))
    }

    async fn report_test(
        &self,
        request: Request<v1::TestReport>,
    ) -> Result<Response<v1::ReportResponse>, Status> {
        let node_id = Caller::of(&request)?.node.to_string();
        self.shared.tests.report(v1::TestReport { node_id, order: None, ..request.into_inner() });
        Ok(Response::new(v1::ReportResponse {}))
    }

    async fn report_traffic(
        &self,
        request: Request<v1::TrafficReport>,
    ) -> Result<Response<v1::ReportResponse>, Status> {
        let node_id = Caller::of(&request)?.node.to_string();
        let report = v1::TrafficReport { node_id, ..request.into_inner() };
        let most = report.tasks.len().max(report.services.len()).max(report.talks.len());
        if most > MAX_TRAFFIC || report.drops.len() > MAX_LISTENERS {
            return Err(invalid("traffic", format!("more than {MAX_TRAFFIC} of a kind")));
        }
        self.shared.watching.report(report);
        Ok(Response::new(v1::ReportResponse {}))
    }

    async fn report_order(
        &self,
        request: Request<v1::OrderReport>,
    ) -> Result<Response<v1::ReportResponse>, Status> {
        let node = Caller::of(&request)?.node;
        self.shared.orders.report(node, request.into_inner());
        Ok(Response::new(v1::ReportResponse {}))
    }

    async fn leave(&self, request: Request<v1::LeaveRequest>) -> Result<Response<v1::LeaveResponse>, Status> {
        let node = Caller::of(&request)?.node;
        self.shared.propose(Command::RemoveNode(node)).await?;
        Ok(Response::new(v1::LeaveResponse {}))
    }
}

impl Dispatcher {
    /// Has the cluster follow a node whose VTEP has another address now. The node is the one that says so: its
    /// certificate tells.
    async fn follow_data_path_addr(&self, node: NodeId, address: IpAddr) -> Result<(), Status> {
        let state = self.shared.state();
        let known = state.node(node).map(|node| node.data_path_addr);
        if known == Some(address) {
            return Ok(());
        }
        let change = NodeChange { data_path_addr: Some(address), ..NodeChange::default() };
        self.shared.propose(Command::UpdateNode { node, change }).await?;
        info!(%node, ?known, %address, "data-path address changed");
        Ok(())
    }
}

fn lease_change(change: v1::NetworkLeaseChange) -> Result<(NetworkId, LeaseChange), Status> {
    let addresses =
        |texts: Vec<String>| texts.iter().map(|text| address(text)).collect::<Result<Vec<_>, _>>();
    let network = parse_id("network_id", &change.network_id)?;
    let (used, unused) = (addresses(change.used)?, addresses(change.unused)?);
    Ok((network, LeaseChange { used, unused, returned: addresses(change.returned)? }))
}

fn network_lease(state: &State, network: NetworkId, addresses: &[IpAddr]) -> v1::NetworkLease {
    v1::NetworkLease {
        network_id: network.to_string(),
        addresses: texts(addresses),
        scarce: state.is_scarce(network),
    }
}

fn family(request: &v1::LeaseRequest) -> Result<Option<Family>, Status> {
    match request.family() {
        v1::IpFamily::Unspecified => Ok(None),
        given => Ok(Some(given.try_into()?)),
    }
}

fn address(text: &str) -> Result<IpAddr, Status> {
    text.parse().map_err(|_| invalid("address", format!("{text:?} is not an IP address")))
}

fn texts(addresses: &[IpAddr]) -> Vec<String> {
    addresses.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests;
