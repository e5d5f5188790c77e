//! ADD and DEL, one at a time and many at once.

use std::{path::PathBuf, thread, time::Instant};

use anyhow::{Context, Result, anyhow};
use mesh_tests::{Cluster, CniPlugin, NetNs};
use serde_json::json;

use super::{Amount, BASE, Measured, NETWORK, Times};

/// Milliseconds of the plugins in turn.
pub fn measure(cluster: &Cluster, amount: &Amount) -> Result<Measured> {
    let node = &cluster[0];
    let leases = cluster.net().prefix().folder().join("host-local");
    let bridge = json!({
        "cniVersion": "1.0.0", "name": "bench-bridge", "type": "bridge", "bridge": "bench0", "isGateway": true,
        "ipam": {
            "type": "host-local", "dataDir": leases, "subnet": "10.99.0.0/20", "routes": [{"dst": "0.0.0.0/0"}],
        },
    });
    let plugins =
        [("mesh-cni", CniPlugin::mesh(node, NETWORK)?), (BASE, CniPlugin::reference(node, bridge)?)];
    let mut measured = plugins.each_ref().map(|(name, _)| (*name, Times::default()));
    let namespace = |name: &str| NetNs::create(&cluster.net().prefix().namespace(name));

    // The first of each makes what lasts, such as the bridge.
    for round in 0..=amount.rounds {
        for ((_, plugin), (name, times)) in plugins.iter().zip(&mut measured) {
            let container = format!("{name}-{round}");
            let namespace = namespace(&container)?;
            let timed = |operation| -> Result<f64> {
                let start = Instant::now();
                plugin.call(operation, &container, &namespace.path()).context(operation)?;
                Ok(start.elapsed().as_secs_f64() * 1e3)
            };
            let (add, del) = (timed("ADD")?, timed("DEL")?);
            if round > 0 {
                times.start.push(add);
                times.stop.push(del);
            }
        }
    }
    for batch in 0..amount.batches {
        for ((_, plugin), (name, times)) in plugins.iter().zip(&mut measured) {
            let mut namespaces = Vec::new();
            for number in 0..amount.at_once {
                namespaces.push(namespace(&format!("{name}-{batch}-{number}"))?);
            }
            let containers: Vec<(String, PathBuf)> =
                namespaces.iter().map(|ns| (ns.name().to_owned(), ns.path())).collect();
            times.start_all.push(all(plugin, "ADD", &containers)?);
            times.stop_all.push(all(plugin, "DEL", &containers)?);
        }
    }
    Ok(measured.into())
}

/// Milliseconds until `operation` is done for all.
fn all(plugin: &CniPlugin, operation: &str, containers: &[(String, PathBuf)]) -> Result<f64> {
    let start = Instant::now();
    thread::scope(|scope| {
        let call = |(name, path): &(String, PathBuf)| {
            plugin.call(operation, name, path).map(drop).with_context(|| format!("{operation} {name}"))
        };
        let threads: Vec<_> =
            containers.iter().map(|container| scope.spawn(move || call(container))).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, Result<()>>| {
            thread.join().map_err(|_| anyhow!("a thread panicked"))?
        };
        threads.into_iter().try_for_each(join)
    })?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}
