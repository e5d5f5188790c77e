//! Docker's plugin waits for what a manager has decided a moment ago, as `meshctl attach` does; and which of Docker's aliases
//! are names.

use anyhow::{Result, ensure};
use mesh_tests::{run, wait};

use super::{SLEEP, SOON, bare_engines, look_up};

#[test]
fn another_node_has_what_was_just_made() -> Result<()> {
    run(2, |cluster| {
        let engines = bare_engines(cluster)?;
        let two = &engines[1];
        for turn in 0..5 {
            let (network, service) = (format!("net{turn}"), format!("svc{turn}"));
            let (option, label) = (format!("network={network}"), format!("mesh.service={service}"));
            let container = format!("c{turn}");
            cluster[0].ctl(&["network", "create", &network])?;
            let create = ["network", "create", "--driver", "mesh", "--opt", &option];
            two.run(&[&create[..], &["--ipam-driver", "mesh", "--ipam-opt", &option, &network]].concat())?;
            cluster[0].ctl(&["service", "create", "--network", &network, &service])?;
            two.container(&container, &["--network", &network, "--label", &label], SLEEP)?;
        }
        Ok(())
    })
}

/// Docker gives each container its short id, takes any text for an alias, and underscores are common in both's names.
#[test]
fn aliases_of_docker_that_are_names() -> Result<()> {
    run(1, |cluster| {
        let engines = bare_engines(cluster)?;
        let engine = &engines[0];
        engine.run(&["network", "create", "--driver", "mesh", "--opt", "network=prod", "prod"])?;
        let aliases = ["--network-alias", "a..b", "--network-alias", "shop_db.main"];
        engine.container("shop_db_1", &[&["--network", "prod"][..], &aliases].concat(), SLEEP)?;
        let id = engine.run(&["inspect", "--format", "{{.Id}}", "shop_db_1"])?;
        for name in ["shop_db_1", "shop_db.main", &id[..12]] {
            wait("the name", SOON, || {
                let found = look_up(engine, "shop_db_1", name)?;
                ensure!(found.len() == 1, "{name} is {found:?}");
                Ok(())
            })?;
        }
        // Labels are said to be wrong while Docker's user listens.
        let label = ["run", "--detach", "--name", "bad", "--network", "prod", "--label", "mesh.alias=a..b"];
        let refusal = engine.refused(&[&label[..], &[mesh_tests::Busybox::NAME], SLEEP].concat())?;
        ensure!(refusal.message.contains("label mesh.alias: name \"a..b\""), "{}", refusal.message);
        Ok(())
    })
}
