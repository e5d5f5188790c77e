//! What cannot be done is told to the runtime's user in words, and leaves nothing.

use std::path::Path;

use anyhow::{Result, ensure};
use mesh_tests::{CniPlugin, NetNs, run};
use serde_json::json;

use crate::{SOON, no_tasks, prepare};

#[test]
fn refusals_are_clear_and_leave_nothing() -> Result<()> {
    run(2, |cluster| {
        prepare(cluster)?;
        cluster[0].ctl(&["network", "create", "--subnet", "10.10.5.0/24", "closed"])?;
        // Gateway, and five for tasks.
        cluster[0].ctl(&["network", "create", "--subnet", "10.10.6.0/29", "--attachable", "small"])?;
        cluster.wait_for_view()?;
        let worker = &cluster[1];
        let container = NetNs::create(&cluster.net().prefix().namespace("c1"))?;
        let untouched = mesh_tests::output(container.command("ip")?.args(["-br", "link"]))?;
        let plugin = CniPlugin::mesh(worker, "prod")?;
        for (fields, code, words) in [
            (json!({"network": "nothing"}), 7, ["no such network: nothing", "meshctl network create"]),
            (json!({"service": "nobody"}), 7, ["no such service: nobody", "meshctl service create"]),
            (json!({"network": "closed"}), 100, ["closed", "\"service\" or MESH_SERVICE"]),
            (json!({"network": "ingress"}), 7, ["ingress", "published ports only"]),
            (json!({"address": "10.9.9.9"}), 7, ["10.9.9.9", "10.10.3.0/24"]),
            (json!({"address": "10.10.3.255"}), 7, ["10.10.3.255", "the last one of 10.10.3.0/24"]),
            (
                json!({"runtimeConfig": {"portMappings": [{"hostPort": 7946, "containerPort": 80}]}}),
                7,
                ["7946/tcp", "gossip"],
            ),
            (
                json!({"service": "web", "publish": ["8080:80"]}),
                100,
                ["worker", "`meshctl publish 8080:80/tcp web`"],
            ),
            (json!({"weight": 1000}), 7, ["\"weight\"", "1 to 100"]),
        ] {
            let refused = plugin.with(fields.clone()).refused("ADD", "c1", &container.path())?;
            ensure!(refused.code == code, "{fields}: {refused}");
            ensure!(words.iter().all(|word| refused.text.contains(word)), "{fields}: {refused}");
        }
        let gone = plugin.refused("ADD", "c1", Path::new("/run/netns/mt-that-is-gone"))?;
        ensure!(gone.code == 3 && gone.text.contains("mt-that-is-gone"), "{gone}");
        no_tasks(worker)?;

        let small = CniPlugin::mesh(worker, "small")?;
        let mut namespaces = Vec::new();
        let full = loop {
            let name = format!("s{}", namespaces.len());
            let namespace = NetNs::create(&cluster.net().prefix().namespace(&name))?;
            let added = small.call("ADD", &name, &namespace.path());
            namespaces.push((name, namespace));
            match added {
                Ok(_) => ensure!(namespaces.len() <= 5, "more addresses than there are"),
                Err(error) => break error.downcast::<mesh_tests::CniError>()?,
            }
        };
        ensure!(full.text.contains("small") && full.text.contains("address"), "{full}");
        for (name, namespace) in &namespaces {
            small.call("DEL", name, &namespace.path())?;
        }
        no_tasks(worker)?;
        // All of them are free again.
        mesh_tests::wait("a free address", SOON, || small.call("ADD", "s0", &namespaces[0].1.path()))?;
        small.call("DEL", "s0", &namespaces[0].1.path())?;
        let after = mesh_tests::output(container.command("ip")?.args(["-br", "link"]))?;
        // Interfaces are numbered on; their names tell.
        ensure!(after == untouched, "a refused ADD left {after}");
        no_tasks(worker)
    })
}
