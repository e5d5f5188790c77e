//! Docker engines for pages that use one.

use std::process::Command;

use anyhow::Result;

use super::Page;
use crate::{Busybox, Docker, cluster::Cluster};

/// Images that pages name. None can be fetched: each is a small web server that says which container it is in.
const IMAGES: &[&str] = &["nginx", "postgres", "redis"];
const SERVER: &str = r#"CMD ["sh", "-c", "hostname > /tmp/index.html; exec httpd -f -p 80 -h /tmp"]"#;

/// The engines of a page's nodes.
#[derive(Debug, Default)]
pub struct Engines(Vec<(usize, Docker)>);

impl Engines {
    /// Starts one on each node where the page calls `docker`; their daemons run anew.
    pub fn start(&mut self, page: &Page, cluster: &Cluster) -> Result<()> {
        let users = page.steps().filter(|step| step.command.starts_with("docker "));
        let mut nodes: Vec<usize> = users.filter_map(super::Step::node).collect();
        nodes.sort_unstable();
        nodes.dedup();
        if nodes.is_empty() {
            return Ok(());
        }
        let image = Busybox::make(&cluster.net().prefix().folder())?;
        for node in nodes {
            let docker = Docker::start(&cluster[node], &image)?;
            docker.run(&["create", "--name", "server", Busybox::NAME])?;
            for name in IMAGES {
                docker.run(&["commit", "--change", SERVER, "server", name])?;
            }
            docker.run(&["rm", "server"])?;
            self.0.push((node, docker));
        }
        Ok(())
    }

    /// Makes `docker` in a command on that node talk to its engine.
    pub fn equip(&self, node: usize, command: &mut Command) {
        for (_, docker) in self.0.iter().filter(|(index, _)| *index == node) {
            command.env("DOCKER_HOST", docker.host()).env("DOCKER_CONFIG", docker.home());
        }
    }

    /// Notes what runs by now, so that it is ended however this process ends.
    pub fn record(&self) -> Result<()> {
        self.0.iter().try_for_each(|(_, docker)| docker.record())
    }
}
