//! What container runtimes wait for: ADD and DEL of the CNI plugin, beside Debian's `bridge` plugin with `host-local`.

use std::{path::PathBuf, thread, time::Instant};

use anyhow::{Context, Result, anyhow};
use clap::Args;
use comfy_table::{Table, presets};
use mesh_tests::{Cluster, CniPlugin, NetNs};
use serde_json::json;

use crate::stats::{median, percentile};

const NETWORK: &str = "bench";

/// How much to measure.
#[derive(Args)]
pub struct Options {
    /// How many containers to start and stop one after the other, with each plugin in turn.
    #[arg(long, default_value_t = 50)]
    rounds: usize,
    /// How many to start and stop at once.
    #[arg(long, default_value_t = 200)]
    at_once: usize,
    /// How often to do that, with each plugin in turn.
    #[arg(long, default_value_t = 3)]
    batches: usize,
}

/// Measures and prints.
pub fn run(options: &Options) -> Result<()> {
    let cluster = Cluster::start(1)?;
    let measured = measure(&cluster, options).map_err(|error| cluster.explain(error))?;
    let mut table = Table::new();
    let at_once = format!("{} at once", options.at_once);
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["plugin", "operation", "median ms", "p90 ms", "max ms"]);
    for (plugin, times) in measured {
        let rows = [
            ("ADD", &times.add),
            ("DEL", &times.del),
            (&format!("ADD, {at_once}"), &times.add_all),
            (&format!("DEL, {at_once}"), &times.del_all),
        ];
        for (operation, times) in rows {
            let figures = [median(times), percentile(times, 0.9), percentile(times, 1.0)];
            let figures = figures.map(|ms| format!("{ms:.1}"));
            table.add_row([vec![plugin.to_owned(), operation.to_owned()], figures.to_vec()].concat());
        }
    }
    println!("{table}");
    Ok(())
}

/// Milliseconds; of those at once, until the last one is done.
#[derive(Default)]
struct Times {
    add: Vec<f64>,
    del: Vec<f64>,
    add_all: Vec<f64>,
    del_all: Vec<f64>,
}

fn measure(cluster: &Cluster, options: &Options) -> Result<Vec<(&'static str, Times)>> {
    let node = &cluster[0];
    node.ctl(&["network", "create", "--subnet", "10.10.0.0/20", "--attachable", NETWORK])?;
    cluster.wait_for_view()?;
    let leases = cluster.net().prefix().folder().join("host-local");
    let bridge = json!({
        "cniVersion": "1.0.0", "name": "bench-bridge", "type": "bridge", "bridge": "bench0", "isGateway": true,
        "ipam": {
            "type": "host-local", "dataDir": leases, "subnet": "10.99.0.0/20", "routes": [{"dst": "0.0.0.0/0"}],
        },
    });
    let plugins =
        [("mesh-cni", CniPlugin::mesh(node, NETWORK)?), ("bridge", CniPlugin::reference(node, bridge)?)];
    let mut measured = plugins.each_ref().map(|(name, _)| (*name, Times::default()));
    let namespace = |name: &str| NetNs::create(&cluster.net().prefix().namespace(name));

    for round in 0..options.rounds {
        for ((_, plugin), (name, times)) in plugins.iter().zip(&mut measured) {
            let container = format!("{name}-{round}");
            let namespace = namespace(&container)?;
            let timed = |operation| -> Result<f64> {
                let start = Instant::now();
                plugin.call(operation, &container, &namespace.path()).context(operation)?;
                Ok(start.elapsed().as_secs_f64() * 1e3)
            };
            // The first of each makes what lasts, such as the bridge.
            let (add, del) = (timed("ADD")?, timed("DEL")?);
            if round > 0 {
                times.add.push(add);
                times.del.push(del);
            }
        }
    }
    for batch in 0..options.batches {
        for ((_, plugin), (name, times)) in plugins.iter().zip(&mut measured) {
            let mut namespaces = Vec::new();
            for number in 0..options.at_once {
                namespaces.push(namespace(&format!("{name}-{batch}-{number}"))?);
            }
            let containers: Vec<(String, PathBuf)> =
                namespaces.iter().map(|ns| (ns.name().to_owned(), ns.path())).collect();
            times.add_all.push(all(plugin, "ADD", &containers)?);
            times.del_all.push(all(plugin, "DEL", &containers)?);
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
