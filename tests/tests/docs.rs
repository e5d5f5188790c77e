//! What README.md and docs/ tell people to do, done: each page on a cluster of its own.

use anyhow::{Result, ensure};
use mesh_tests::docs::{Fate, Page, pages};

/// Blocks that nothing runs. A new one needs a reason in its fence, and a place here.
const NOT_RUN: usize = 11;

#[test]
fn every_block_is_run_or_says_why_not() -> Result<()> {
    let mut left = 0;
    for page in pages()? {
        let tested = RUN.contains(&&*page.path);
        ensure!(
            page.is_run() == tested,
            "{}: has commands: {}; has a test: {tested}",
            page.path,
            page.is_run()
        );
        page.check_tried()?;
        page.check_links()?;
        for block in &page.blocks {
            if let Fate::NotRun { reason, .. } = &block.fate {
                println!("{}:{}: {reason}", page.path, block.line);
                left += 1;
            }
        }
    }
    ensure!(left <= NOT_RUN, "{left} blocks are not run, more than {NOT_RUN}");
    Ok(())
}

/// A test for each page that has commands.
macro_rules! pages {
    ($($name:ident: $path:literal,)*) => {
        const RUN: &[&str] = &[$($path),*];
        $(
            #[test]
            fn $name() -> Result<()> {
                Page::read($path)?.run()
            }
        )*
    };
}

pages! {
    readme: "README.md",
    addresses: "docs/addresses.md",
    cli: "docs/cli.md",
    cni: "docs/cni.md",
    configuration: "docs/configuration.md",
    dashboard: "docs/dashboard.md",
    docker: "docs/docker.md",
    firewall_and_cloud: "docs/firewall-and-cloud.md",
    flows: "docs/flows.md",
    getting_started: "docs/getting-started.md",
    gossip: "docs/gossip.md",
    health: "docs/health.md",
    mesh_yaml: "docs/mesh-yaml.md",
    migrating_from_swarm: "docs/migrating-from-swarm.md",
    systemd: "docs/systemd.md",
}
