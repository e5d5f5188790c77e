//! While somebody looks at a manager's dashboard: tells of this node's traffic, and does with its tasks what was ordered there.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use mesh_agent::{Agent, one_line};
use mesh_api::v1::{self, task_order::What};
use tokio::{sync::watch, time::sleep};
use tracing::{debug, info};

/// The least time between two walks through the flows.
const WALK: Duration = Duration::from_secs(5);
/// A walk may take this part of the time.
const SHARE: u32 = 20;

/// Does both until the agent stops.
pub async fn follow(agent: Agent) {
    let stop = agent.stopping();
    let work = async { tokio::join!(report(&agent), obey(&agent)) };
    stop.run_until_cancelled(work).await;
}

async fn report(agent: &Agent) {
    let mut wanted = agent.traffic_wanted();
    let (mut took, mut talks, mut next_walk) = (Duration::ZERO, Vec::new(), Instant::now());
    while let Some(every) = every(&mut wanted).await {
        if Instant::now() >= next_walk {
            let begun = Instant::now();
            match agent.talks().await {
                Ok(now) => talks = now,
                Err(error) => debug!(error = one_line(&error), "who talks to whom"),
            }
            next_walk = Instant::now() + WALK.max(begun.elapsed() * SHARE);
        }
        match agent.traffic().await {
            Ok(mut report) => {
                report.talks.clone_from(&talks);
                report.manager_micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
                let begun = Instant::now();
                match agent.report_traffic(report).await {
                    Ok(()) => took = begun.elapsed(),
                    Err(error) => debug!(error = one_line(&error), "report traffic"),
                }
            }
            Err(error) => debug!(error = one_line(&error), "read traffic"),
        }
        sleep(every).await;
    }
}

/// Waits until somebody looks; none when nobody will.
async fn every(wanted: &mut watch::Receiver<u32>) -> Option<Duration> {
    let secs = *wanted.wait_for(|secs| *secs > 0).await.ok()?;
    Some(Duration::from_secs(secs.min(60).into()))
}

async fn obey(agent: &Agent) {
    let mut orders = agent.task_orders();
    let mut known: BTreeSet<String> = BTreeSet::new();
    loop {
        let wanted = orders.borrow_and_update().clone();
        // What is told no more has been reported, or nobody waits for it.
        known.retain(|id| wanted.iter().any(|order| order.id == *id));
        for order in wanted {
            if known.insert(order.id.clone()) {
                tokio::spawn(carry_out(agent.clone(), order));
            }
        }
        if orders.changed().await.is_err() {
            return;
        }
    }
}

async fn carry_out(agent: Agent, order: v1::TaskOrder) {
    let done = match order.what {
        Some(What::Weight(weight)) => {
            agent.set_weight(&order.task_id, u16::try_from(weight).unwrap_or(u16::MAX)).await.map(drop)
        }
        Some(What::Drain(true)) => agent.drain(&order.task_id, None).await.map(drop),
        _ => Ok(()),
    };
    let failure = done.err().map(|error| one_line(&error)).unwrap_or_default();
    info!(task = order.task_id, what = ?order.what, failure, "a manager's order");
    if let Err(error) = agent.report_order(v1::OrderReport { id: order.id, failure }).await {
        debug!(error = one_line(&error), "report what came of an order");
    }
}
