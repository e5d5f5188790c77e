//! A disk that takes long to have what a node keeps holds up no news.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Result, ensure};
use mesh_tests::{SlowDisk, TaskSpec, get, run, wait};

const SOON: Duration = Duration::from_secs(5);
const DELAY: Duration = Duration::from_secs(30);

fn on_prod(name: &str) -> TaskSpec<'_> {
    TaskSpec { name, network: "prod", ..TaskSpec::default() }
}

#[test]
fn news_is_applied_while_the_disk_takes_its_time() -> Result<()> {
    run(3, |cluster| {
        let observing = &cluster[1];
        cluster[0].ctl(&["network", "create", "--subnet", "10.10.3.0/24", "--attachable", "prod"])?;
        cluster.wait_for_view()?;
        let observer = observing.run_idle(&on_prod("observer"))?;
        let _slow = SlowDisk::of(observing, DELAY)?;
        // Kept on that node, which takes the disk half a minute.
        cluster[0].ctl(&["network", "create", "--attachable", "other"])?;
        wait("the node to hear of it", SOON, || {
            ensure!(observing.ctl(&["network", "ls"])?.contains("other"));
            Ok(())
        })?;
        let web = cluster[2].run_nginx(&on_prod("web"))?;
        let server = SocketAddr::from((web.task.address()?, 80));
        wait("the new task", SOON, || observer.inside(|| get(server, SOON))?).map(drop)
    })
}
