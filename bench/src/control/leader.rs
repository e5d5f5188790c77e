//! Time from a leader's death to the next change.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use mesh_api::v1::EndpointMode;
use mesh_tests::Cluster;
use tokio::{runtime::Runtime, time::sleep};

use super::client::Client;

/// The longest wait.
const AT_MOST: Duration = Duration::from_secs(30);

/// Kills the leading manager so many times, and starts it again each time; milliseconds.
pub fn measure(runtime: &Runtime, cluster: &Cluster, rounds: usize) -> Result<Vec<f64>> {
    let first = runtime.block_on(Client::connect(&cluster[0].socket()))?;
    runtime.block_on(first.create_service("leader", "ingress", EndpointMode::Dnsrr))?;
    let mut times = Vec::new();
    for round in 0..rounds {
        let leader = runtime.block_on(leader(cluster))?;
        let other = cluster.nodes().iter().find(|node| node.index() != leader).context("one manager only")?;
        let client = runtime.block_on(Client::connect(&other.socket()))?;
        cluster[leader].kill()?;
        let killed = Instant::now();
        while let Err(error) = runtime.block_on(client.label("leader", &round.to_string())) {
            mesh_tests::interrupt::check()?;
            if killed.elapsed() > AT_MOST {
                return Err(error.context(format!("no change within {AT_MOST:?} of the leader's death")));
            }
        }
        times.push(killed.elapsed().as_secs_f64() * 1e3);
        cluster[leader].start()?;
        cluster.wait_for_members(cluster.nodes().len())?;
    }
    Ok(times)
}

/// The index of the node that leads, as the managers say.
async fn leader(cluster: &Cluster) -> Result<usize> {
    let mut clients = Vec::new();
    for node in cluster.nodes() {
        clients.push(Client::connect(&node.socket()).await?);
    }
    let begin = Instant::now();
    while begin.elapsed() < AT_MOST {
        for client in &clients {
            let Some(leader) = client.leader().await? else { continue };
            for (index, client) in clients.iter().enumerate() {
                if client.node().await? == leader {
                    return Ok(index);
                }
            }
        }
        sleep(Duration::from_millis(50)).await;
    }
    bail!("no manager says who leads")
}
