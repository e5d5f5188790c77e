//! Changes a second.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use mesh_api::v1::EndpointMode;
use mesh_tests::Cluster;
use tokio::task::JoinSet;

use super::client::Client;
use crate::stats::percentile;

/// What was measured.
pub struct Rate {
    /// Of all clients together.
    pub changes_per_second: f64,
    milliseconds: Vec<f64>,
}

impl Rate {
    /// Below which `share` of the changes were answered.
    pub fn milliseconds(&self, share: f64) -> f64 {
        percentile(&self.milliseconds, share)
    }
}

/// Lets `clients` change a service each, one change after the other, on all managers in turn.
pub async fn measure(cluster: &Cluster, clients: usize, seconds: u64) -> Result<Rate> {
    let mut all = Vec::new();
    for number in 0..clients {
        let node = &cluster.nodes()[number % cluster.nodes().len()];
        all.push((number, Client::connect(&node.socket()).await?));
    }
    for (number, client) in &all {
        // There already if other clients were measured before.
        let _ = client.create_service(&service(*number), "ingress", EndpointMode::Dnsrr).await;
    }
    let length = Duration::from_secs(seconds);
    let begin = Instant::now();
    let mut running = JoinSet::new();
    for (number, client) in all {
        running.spawn(async move {
            let mut times = Vec::new();
            for turn in 0u64.. {
                if begin.elapsed() > length {
                    break;
                }
                let start = Instant::now();
                client.label(&service(number), &turn.to_string()).await?;
                times.push(start.elapsed().as_secs_f64() * 1e3);
            }
            Ok::<_, anyhow::Error>(times)
        });
    }
    let mut milliseconds = Vec::new();
    while let Some(times) = running.join_next().await {
        milliseconds.extend(times??);
    }
    ensure!(!milliseconds.is_empty(), "no change was made within {length:?}");
    Ok(Rate { changes_per_second: milliseconds.len() as f64 / begin.elapsed().as_secs_f64(), milliseconds })
}

fn service(number: usize) -> String {
    format!("rate{number}")
}
