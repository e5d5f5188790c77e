//! What this node tells managers for people who look at their dashboards, and what those have it do with its tasks.

use std::{
    collections::{BTreeMap, HashMap},
    ops::ControlFlow,
    time::Duration,
};

use mesh_api::v1;
use mesh_lb::Traffic;
use mesh_types::{ServiceId, TaskId};
use tokio::sync::watch;

use crate::{
    Agent, AgentError, EndpointCounts, FlowFilter, FlowsError, SessionError, Snapshot, leases::boot_time,
};

/// Flows that are looked at for who talks to whom.
const FLOWS: usize = 100_000;
/// Pairs that are told.
const PAIRS: usize = 200;

/// Client, task, service, and the port and protocol that the client speaks to.
type Pair = (Option<String>, String, String, u16, u8);

impl Agent {
    /// How often the managers want to know of this node's traffic, in seconds, as it changes; 0: not.
    pub fn traffic_wanted(&self) -> watch::Receiver<u32> {
        self.inner.session.traffic()
    }

    /// What the managers want done with tasks of this node, as it changes. Whoever has done it reports that.
    pub fn task_orders(&self) -> watch::Receiver<Vec<v1::TaskOrder>> {
        self.inner.session.orders()
    }

    /// Tells the managers of this node's traffic.
    pub async fn report_traffic(&self, report: v1::TrafficReport) -> Result<(), SessionError> {
        self.inner.session.report_traffic(report).await
    }

    /// Tells the managers what came of an order.
    pub async fn report_order(&self, report: v1::OrderReport) -> Result<(), SessionError> {
        self.inner.session.report_order(report).await
    }

    /// What passed since the data path began, without who talks to whom: of the snapshot that metrics and `meshctl top` show
    /// too, so that they cannot disagree.
    pub async fn traffic(&self) -> Result<v1::TrafficReport, AgentError> {
        let snapshot = self.snapshot().await?;
        let checked = |task| self.last_check(task).map(|check| check.took);
        Ok(report(&snapshot, boot_time(), checked))
    }

    /// Who talks to whom: the pairs with most of the flows that entered by this node.
    pub async fn talks(&self) -> Result<Vec<v1::Talk>, FlowsError> {
        let flows = self.flows(&FlowFilter::default()).await?;
        let counted = tokio::task::spawn_blocking(move || {
            let mut pairs: HashMap<Pair, u64> = HashMap::new();
            let mut seen = 0;
            flows.run(|flow| {
                seen += 1;
                let entry = &flow.entry;
                if entry.entrance.is_none()
                    && let (Some(task), Some(service)) = (flow.task, flow.service)
                {
                    // A node that is a client is outside of the mesh's networks.
                    let client = flow.client.filter(|_| entry.vni.is_some() || entry.client_task.is_some());
                    let pair = (client, task, service, entry.front.port(), entry.protocol);
                    *pairs.entry(pair).or_default() += 1;
                }
                if seen < FLOWS { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            Ok::<_, mesh_lb::Error>(pairs)
        });
        let Ok(counted) = counted.await else { return Ok(Vec::new()) };
        let mut pairs: Vec<(Pair, u64)> = counted?.into_iter().collect();
        pairs.sort_by(|(a, n), (b, m)| m.cmp(n).then_with(|| a.cmp(b)));
        let talk = |((from, to, service, port, protocol), flows): (Pair, u64)| v1::Talk {
            from: from.unwrap_or_default(),
            to,
            service,
            port: u32::from(port),
            protocol: protocol_name(protocol),
            flows,
        };
        Ok(pairs.into_iter().take(PAIRS).map(talk).collect())
    }
}

/// Of a snapshot that was made so long after the machine's start; `checked` tells how long a task's last check took.
fn report(
    snapshot: &Snapshot,
    made: Duration,
    checked: impl Fn(TaskId) -> Option<Duration>,
) -> v1::TrafficReport {
    let task = |place: &EndpointCounts| {
        let passed = place.traffic;
        v1::TaskTraffic {
            task_id: place.task.to_string(),
            network_id: place.network.to_string(),
            packets_in: passed.packets_in,
            bytes_in: passed.bytes_in,
            packets_out: passed.packets_out,
            bytes_out: passed.bytes_out,
            new_flows: passed.new_flows,
            drops: passed.drops(),
            check_micros: checked(place.task).map(micros),
        }
    };
    let mut by_service: BTreeMap<ServiceId, Traffic> = BTreeMap::new();
    for frontend in &snapshot.frontends {
        *by_service.entry(frontend.service).or_default() += frontend.traffic;
    }
    let service = |(id, passed): (ServiceId, Traffic)| v1::ServiceTraffic {
        service_id: id.to_string(),
        bytes: passed.bytes_in.wrapping_add(passed.bytes_out),
        drops: passed.drops(),
    };
    let drops = snapshot.data_path.drops.iter().filter(|(_, count)| **count > 0);
    v1::TrafficReport {
        made_millis: u64::try_from(made.as_millis()).unwrap_or(u64::MAX),
        tasks: snapshot.endpoints.iter().map(task).collect(),
        services: by_service.into_iter().filter(|(_, t)| *t != Traffic::default()).map(service).collect(),
        drops: drops.map(|(reason, count)| (reason.as_str().to_owned(), *count)).collect(),
        ..Default::default()
    }
}

fn protocol_name(number: u8) -> String {
    match number {
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        132 => "sctp".to_owned(),
        other => other.to_string(),
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
