//! Two hundred containers at once on one node: all right, none left.

use std::{collections::BTreeSet, path::PathBuf, thread};

use anyhow::{Context, Result, anyhow, ensure};
use mesh_tests::{CniPlugin, Inventory, NetNs, run, wait};
use serde_json::{Value, json};

use crate::{SOON, prepare};

const COUNT: usize = 200;

/// Does something with each at once; the first error.
fn at_once<T: Send, R: Send>(items: Vec<T>, work: impl Fn(T) -> Result<R> + Sync) -> Result<Vec<R>> {
    thread::scope(|scope| {
        let threads: Vec<_> = items.into_iter().map(|item| scope.spawn(|| work(item))).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, Result<R>>| {
            thread.join().map_err(|_| anyhow!("a thread panicked"))?
        };
        threads.into_iter().map(join).collect()
    })
}

#[test]
fn two_hundred_at_once() -> Result<()> {
    run(1, |cluster| {
        prepare(cluster)?;
        let node = &cluster[0];
        let plugin = CniPlugin::mesh(node, "prod")?;
        let mut namespaces = Vec::new();
        for number in 0..COUNT {
            namespaces.push(NetNs::create(&cluster.net().prefix().namespace(&format!("c{number}")))?);
        }
        let containers = || -> Vec<(String, PathBuf)> {
            let named = namespaces.iter().enumerate();
            named.map(|(number, namespace)| (format!("c{number}"), namespace.path())).collect()
        };
        // The first one makes what lasts.
        plugin.call("ADD", "first", &namespaces[0].path())?;
        plugin.call("DEL", "first", &namespaces[0].path())?;
        let before = Inventory::settled(cluster)?;

        let added = at_once(containers(), |(name, path)| {
            let added = plugin.call("ADD", &name, &path).with_context(|| format!("ADD {name}"))?;
            Ok((name, path, added))
        })?;
        let address = |result: &Value| result["ips"][0]["address"].as_str().unwrap_or_default().to_owned();
        let addresses: BTreeSet<String> = added.iter().map(|(_, _, result)| address(result)).collect();
        ensure!(addresses.len() == COUNT, "{} addresses for {COUNT} containers", addresses.len());
        let gateway = addresses.iter().find(|address| !address.starts_with("10.10.3."));
        ensure!(gateway.is_none(), "{gateway:?}");
        at_once(added, |(name, path, result)| {
            let check = plugin.with(json!({ "prevResult": result }));
            check.call("CHECK", &name, &path).with_context(|| format!("CHECK {name}"))
        })?;

        at_once(containers(), |(name, path)| {
            plugin.call("DEL", &name, &path).with_context(|| format!("DEL {name}"))
        })?;
        wait("everything to be as before", SOON, || {
            let difference = before[0].difference(&Inventory::of(node)?);
            ensure!(difference.is_empty(), "{difference}");
            Ok(())
        })
    })
}
