//! Time from `publish` until the data path of the last node follows it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mesh_api::v1::{EndpointMode, Port, Protocol, PublishMode, UpdateServiceRequest};
use mesh_tests::Cluster;
use tokio::{runtime::Runtime, task::JoinSet, time::sleep};

use super::client::Client;
use crate::record::{Better, Figure, Record, Suite};

/// The longest wait.
const AT_MOST: Duration = Duration::from_secs(10);

/// Publishes and closes a port so many times on a cluster of one manager and `agents` nodes in all.
pub fn measure(runtime: &Runtime, agents: u8, rounds: usize, record: &mut Record) -> Result<()> {
    let cluster = Cluster::start(agents)?;
    let times = runtime.block_on(publish(&cluster, rounds)).map_err(|error| cluster.explain(error))?;
    let title = format!("publish until the last of {agents} nodes follows");
    let figure = Figure::new(Suite::Control, format!("publish-{agents}"), title, "ms", Better::Lower);
    times.into_iter().for_each(|milliseconds| record.alone(figure.clone(), milliseconds));
    Ok(())
}

async fn publish(cluster: &Cluster, rounds: usize) -> Result<Vec<f64>> {
    let mut all = Vec::new();
    for node in cluster.nodes() {
        all.push(Client::connect(&node.socket()).await?);
    }
    let first = all.first().context("no nodes")?.clone();
    first.create_service("spread", "ingress", EndpointMode::Vip).await?;
    let mut times = Vec::new();
    for round in 0..rounds {
        mesh_tests::interrupt::check()?;
        let published = 20_000 + u32::try_from(round)?;
        let port = Port {
            published,
            target: 80,
            protocol: Protocol::Tcp.into(),
            mode: PublishMode::Ingress.into(),
            ..Port::default()
        };
        let request = UpdateServiceRequest {
            service: "spread".to_owned(),
            add_ports: vec![port],
            ..UpdateServiceRequest::default()
        };
        let start = Instant::now();
        let version = first.update(request).await?;
        let mut waiting = JoinSet::new();
        for client in all.clone() {
            waiting.spawn(async move {
                while client.applied().await? < version {
                    ensure!(start.elapsed() < AT_MOST, "a node lacks version {version} after {AT_MOST:?}");
                    sleep(Duration::from_millis(1)).await;
                }
                Ok(())
            });
        }
        while let Some(followed) = waiting.join_next().await {
            followed??;
        }
        times.push(start.elapsed().as_secs_f64() * 1e3);
        sleep(Duration::from_millis(100)).await;
    }
    Ok(times)
}
