//! A node's session: the decided state at first, then what changed, until either side is gone.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use mesh_api::{node_listeners, v1};
use mesh_store::State;
use mesh_types::{NetworkId, NodeId};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tracing::debug;

use super::network_lease;
use crate::{reports::Listeners, shared::Place};

/// The node on the other side.
pub(crate) struct Follower {
    pub place: Place,
    pub node: NodeId,
    /// It can follow changes; else it is sent the whole state each time.
    pub changes: bool,
    /// The tests of connectivity that are under way.
    pub tests: watch::Receiver<Arc<Vec<v1::TestOrder>>>,
    /// What nodes are to do with their tasks.
    pub orders: watch::Receiver<Arc<Vec<v1::TaskOrder>>>,
    /// How often nodes are to report traffic.
    pub traffic: watch::Receiver<u32>,
}

/// What a message says.
#[derive(Debug, Clone)]
struct Said {
    state: Arc<State>,
    leases: BTreeMap<NetworkId, Vec<IpAddr>>,
    /// Which of these networks have little left, in their order.
    scarce: Vec<bool>,
    listeners: Arc<Listeners>,
    tests: Arc<Vec<v1::TestOrder>>,
    /// Of this node.
    orders: Vec<v1::TaskOrder>,
    traffic: u32,
}

impl Said {
    fn differs(&self, other: &Self) -> bool {
        self.state.view_version() != other.state.view_version()
            || !self.same_leases(other)
            || self.listeners != other.listeners
            || self.tests != other.tests
            || self.orders != other.orders
            || self.traffic != other.traffic
    }

    fn same_leases(&self, other: &Self) -> bool {
        self.leases == other.leases && self.scarce == other.scarce
    }
}

impl Follower {
    /// Sends the state now and after every change that concerns the node.
    pub(crate) async fn serve(
        mut self,
        mut changes: watch::Receiver<Arc<State>>,
        mut listeners: watch::Receiver<Arc<Listeners>>,
        states: mpsc::Sender<Result<v1::NodeState, Status>>,
        stop: CancellationToken,
    ) {
        let node = self.node;
        // What was looked at last, and what was sent last.
        let (mut seen, mut sent): (Option<Said>, Option<Said>) = (None, None);
        // Nobody begins one any more once it is false.
        let (mut tests_go_on, mut orders_go_on, mut traffic_goes_on) = (true, true, true);
        debug!(%node, "session begins");
        while let Ok(slot) = states.reserve().await {
            // Whatever changed while the node was busy is in this one.
            let state = changes.borrow_and_update().clone();
            if state.node(node).is_none() {
                slot.send(Err(Status::permission_denied(format!(
                    "node {node} was removed from the cluster"
                ))));
                break;
            }
            self.tests.borrow_and_update();
            self.orders.borrow_and_update();
            self.traffic.borrow_and_update();
            let now = self.look(seen.take(), state, listeners.borrow_and_update().clone());
            if sent.as_ref().is_none_or(|sent| sent.differs(&now)) {
                slot.send(Ok(self.message(sent.as_ref(), &now)));
                sent = Some(now.clone());
            } else {
                drop(slot);
            }
            seen = Some(now);
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { break },
                changed = listeners.changed() => if changed.is_err() { break },
                changed = self.tests.changed(), if tests_go_on => tests_go_on = changed.is_ok(),
                changed = self.orders.changed(), if orders_go_on => orders_go_on = changed.is_ok(),
                changed = self.traffic.changed(), if traffic_goes_on => traffic_goes_on = changed.is_ok(),
                () = states.closed() => break,
                () = stop.cancelled() => {
                    let why = "this manager stops, or reaches no majority of the managers";
                    let _ = states.send(Err(Status::unavailable(why))).await;
                    break;
                }
            }
        }
        debug!(%node, "session ends");
    }

    /// What there is to say now. Only what changed since the last look is looked at: there may be very many addresses.
    fn look(&self, seen: Option<Said>, state: Arc<State>, listeners: Arc<Listeners>) -> Said {
        let leases = match seen {
            Some(seen) if !seen.state.leases_differ(&state, self.node) => seen.leases,
            _ => state.leases_of(self.node),
        };
        let scarce = leases.keys().map(|network| state.is_scarce(*network)).collect();
        let tests = self.tests.borrow().clone();
        let own = self.node.to_string();
        let orders = self.orders.borrow().iter().filter(|order| order.node_id == own).cloned().collect();
        Said { state, leases, scarce, listeners, tests, orders, traffic: *self.traffic.borrow() }
    }

    fn message(&self, sent: Option<&Said>, now: &Said) -> v1::NodeState {
        let state = &*now.state;
        let managers = self.place.manager_list(state);
        let leases = || now.leases.iter().map(|(network, all)| network_lease(state, *network, all)).collect();
        let (tests, orders, traffic_secs) = (now.tests.to_vec(), now.orders.clone(), now.traffic);
        let listeners = || now.listeners.iter().map(|(node, all)| node_listeners(*node, all)).collect();
        let sent = sent.filter(|_| self.changes);
        let change = sent.and_then(|sent| Some((sent, sent.state.view_change(state)?)));
        let Some((sent, change)) = change else {
            let view = state.view().as_ref().map(Into::into);
            let (leases, listeners) = (leases(), listeners());
            return v1::NodeState {
                view,
                leases,
                managers,
                listeners,
                tests,
                orders,
                traffic_secs,
                ..Default::default()
            };
        };
        let (same_leases, same_listeners) = (sent.same_leases(now), sent.listeners == now.listeners);
        v1::NodeState {
            view: None,
            leases: if same_leases { Vec::new() } else { leases() },
            managers,
            listeners: if same_listeners { Vec::new() } else { listeners() },
            change: Some((&change).into()),
            same_leases,
            same_listeners,
            tests,
            orders,
            traffic_secs,
        }
    }
}
