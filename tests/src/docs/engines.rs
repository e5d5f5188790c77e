//! Engines of containers, and firewalls, for pages that use one.

use std::process::Command;

use anyhow::Result;

use super::{Page, Step};
use crate::{Busybox, Docker, Firewall, Node, Podman, cluster::Cluster, netns::NetNs};

/// Images that pages name. None can be fetched: each is a small web server that says which container it is in.
const IMAGES: &[&str] = &["nginx", "postgres", "redis"];
const SERVER: &str = r#"CMD ["sh", "-c", "hostname > /tmp/index.html; exec httpd -f -p 80 -h /tmp"]"#;

/// The engines of a page's nodes, by the nodes' places.
#[derive(Debug, Default)]
pub struct Engines {
    docker: Vec<(usize, Docker)>,
    podman: Vec<(usize, Podman)>,
    firewalls: Vec<(usize, Firewall)>,
}

impl Engines {
    /// Starts one on each node where the page calls `docker` or `podman`. Daemons of nodes with Docker run anew; all of the
    /// page's commands on a node with Podman see folders of its own, in the machine's usual places.
    pub fn start(&mut self, page: &Page, cluster: &Cluster) -> Result<()> {
        let (dockers, podmans) = (users(page, "docker "), users(page, "podman "));
        if dockers.is_empty() && podmans.is_empty() {
            return Ok(());
        }
        let image = Busybox::make(&cluster.net().prefix().folder())?;
        for node in dockers {
            let docker = Docker::start(&cluster[node], &image)?;
            make_images("", |words| docker.run(words))?;
            self.docker.push((node, docker));
        }
        for node in podmans {
            let podman = Podman::on(&cluster[node], &image)?;
            make_images("docker.io/library/", |words| podman.podman(words))?;
            self.podman.push((node, podman));
        }
        Ok(())
    }

    /// Puts a firewall on the node of the first step that calls it: what it closes is not to be closed before the page is there.
    pub fn begin_firewall(&mut self, step: &Step, cluster: &Cluster) -> Result<()> {
        let Some(index) = step.node() else { return Ok(()) };
        if self.firewalls.iter().any(|(node, _)| *node == index) {
            return Ok(());
        }
        let firewall = match step.command.split(' ').next() {
            Some("ufw") => Firewall::ufw(&cluster[index])?,
            Some("firewall-cmd") => Firewall::firewalld(&cluster[index])?,
            _ => return Ok(()),
        };
        self.firewalls.push((index, firewall));
        Ok(())
    }

    /// A command that runs `program` on a node, where `docker` and `podman` find the node's engines.
    pub fn command(&self, node: &Node, program: &str) -> Result<Command> {
        let podman = self.podman.iter().find(|(index, _)| *index == node.index());
        let firewall = self.firewalls.iter().find(|(index, _)| *index == node.index());
        let mut command = match (podman, firewall) {
            (Some((_, podman)), _) => podman.folders().command(program)?,
            (None, Some((_, firewall))) => firewall.command(program)?,
            (None, None) => NetNs::command_at(node.namespace_path(), program)?,
        };
        for (_, docker) in self.docker.iter().filter(|(index, _)| *index == node.index()) {
            command.env("DOCKER_HOST", docker.host()).env("DOCKER_CONFIG", docker.home());
        }
        Ok(command)
    }

    /// Notes what runs by now, so that it is ended however this process ends.
    pub fn record(&self) -> Result<()> {
        self.docker.iter().try_for_each(|(_, docker)| docker.record())?;
        self.podman.iter().try_for_each(|(_, podman)| podman.folders().record())
    }
}

fn users(page: &Page, program: &str) -> Vec<usize> {
    let steps = page.steps().filter(|step| step.command.starts_with(program));
    let mut nodes: Vec<usize> = steps.filter_map(Step::node).collect();
    nodes.sort_unstable();
    nodes.dedup();
    nodes
}

fn make_images(place: &str, engine: impl Fn(&[&str]) -> Result<String>) -> Result<()> {
    engine(&["create", "--name", "server", Busybox::NAME])?;
    for name in IMAGES {
        engine(&["commit", "--change", SERVER, "server", &format!("{place}{name}")])?;
    }
    engine(&["rm", "server"]).map(drop)
}
