//! What nodes are to do with their tasks because somebody asked a manager: each node hears of it in its session and reports what
//! came of it. An order lasts as long as somebody waits for that.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use mesh_api::{
    parse_id,
    v1::{self, task_order::What},
};
use mesh_types::{MAX_WEIGHT, NodeId, Role};
use rand::Rng;
use tokio::{
    sync::{oneshot, watch},
    time::timeout,
};
use tonic::{Code, Status};

use crate::{shared::Shared, status::invalid, watching::client_of};

/// How long a node may take to report.
const ANSWER: Duration = Duration::from_secs(10);
/// Orders at a time.
const AT_ONCE: usize = 64;

/// The orders that nodes are told of.
#[derive(Default)]
pub(crate) struct Orders {
    waiting: Mutex<BTreeMap<String, (v1::TaskOrder, oneshot::Sender<String>)>>,
    told: watch::Sender<Arc<Vec<v1::TaskOrder>>>,
}

impl Orders {
    /// All orders, as they change.
    pub fn watch(&self) -> watch::Receiver<Arc<Vec<v1::TaskOrder>>> {
        self.told.subscribe()
    }

    /// What `node` says of an order of its own.
    pub fn report(&self, node: NodeId, report: v1::OrderReport) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let its_own = waiting.get(&report.id).is_some_and(|(order, _)| order.node_id == node.to_string());
        if its_own && let Some((_, done)) = waiting.remove(&report.id) {
            // Nobody waits any more.
            let _ = done.send(report.failure);
            self.tell(&waiting);
        }
    }

    fn begin(self: &Arc<Self>, order: v1::TaskOrder) -> Result<(Given, oneshot::Receiver<String>), Status> {
        let id = order.id.clone();
        let (done, wait) = oneshot::channel();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= AT_ONCE {
            return Err(Status::resource_exhausted("so many orders wait for their nodes; try again"));
        }
        waiting.insert(id.clone(), (order, done));
        self.tell(&waiting);
        Ok((Given { orders: self.clone(), id }, wait))
    }

    fn tell(&self, waiting: &BTreeMap<String, (v1::TaskOrder, oneshot::Sender<String>)>) {
        self.told.send_replace(Arc::new(waiting.values().map(|(order, _)| order.clone()).collect()));
    }
}

/// Dropped, the node is not told of it any more.
struct Given {
    orders: Arc<Orders>,
    id: String,
}

impl Drop for Given {
    fn drop(&mut self) {
        let mut waiting = self.orders.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.remove(&self.id).is_some() {
            self.orders.tell(&waiting);
        }
    }
}

/// Has a node carry out an order, by way of the manager that it is in session with.
pub(crate) async fn order(shared: &Shared, mut order: v1::TaskOrder) -> Result<v1::OrderReport, Status> {
    match order.what {
        Some(What::Weight(weight)) if (1..=u32::from(MAX_WEIGHT)).contains(&weight) => {}
        Some(What::Weight(weight)) => {
            return Err(invalid("weight", format!("{weight} is not between 1 and {MAX_WEIGHT}")));
        }
        Some(What::Drain(true)) => {}
        _ => return Err(invalid("what", "there is nothing to do".to_owned())),
    }
    let node: NodeId = parse_id("node_id", &order.node_id)?;
    if shared.reports.has_session(node) {
        order.id = format!("{:032x}", rand::rng().random::<u128>());
        let (given, wait) = shared.orders.begin(order)?;
        let id = given.id.clone();
        return match timeout(ANSWER, wait).await {
            Ok(Ok(failure)) => Ok(v1::OrderReport { id, failure }),
            _ => Err(Status::unavailable("the node did not answer in time; look at the task")),
        };
    }
    let state = shared.state();
    let name = state.node(node).map_or_else(|| order.node_id.clone(), |node| node.name.to_string());
    let absent =
        || Status::not_found(format!("node {name} is in session with no manager that can be reached"));
    if order.passed_on {
        return Err(absent());
    }
    order.passed_on = true;
    let own = shared.place.node;
    for manager in state.nodes().filter(|node| node.role == Role::Manager && node.id != own) {
        let asked = async { client_of(shared, manager).await?.order_task(order.clone()).await };
        match timeout(ANSWER * 2, asked).await {
            Ok(Ok(report)) => return Ok(report.into_inner()),
            // Another manager may have the session.
            Ok(Err(status)) if matches!(status.code(), Code::NotFound | Code::Unavailable) => {}
            Ok(Err(status)) => return Err(status),
            Err(_) => {}
        }
    }
    Err(absent())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_node_itself_says_what_came_of_an_order() {
        let orders = Arc::new(Orders::default());
        let node = NodeId::from_u128(1);
        let order = v1::TaskOrder { id: "a".into(), node_id: node.to_string(), ..Default::default() };
        let (given, mut wait) = orders.begin(order.clone()).unwrap();
        assert_eq!(orders.watch().borrow().len(), 1);
        let report = v1::OrderReport { id: "a".into(), failure: "no".into() };
        orders.report(NodeId::from_u128(2), report.clone());
        assert!(wait.try_recv().is_err());
        orders.report(node, report);
        assert_eq!(wait.await.unwrap(), "no");
        assert!(orders.watch().borrow().is_empty());
        drop(given);
        let (given, _wait) = orders.begin(order).unwrap();
        drop(given);
        assert!(orders.watch().borrow().is_empty(), "nobody waits");
    }
}
