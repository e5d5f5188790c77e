//! The peer: Docker Swarm on a few machines, its overlay, and its ingress where the kernel has IPVS.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use mesh_tests::{Prefix, wait};

use super::{Engine, Machine};
use crate::path::Ports;

/// For what a swarm does by itself.
const SOON: Duration = Duration::from_secs(60);
const NETWORK: &str = "bench";
const LABEL: &str = "label=com.docker.swarm.service.name";

/// Engines of which the first manages. Removed on drop.
pub struct Swarm {
    engines: Vec<Engine>,
}

/// Two containers on one overlay network.
pub struct Pair {
    /// The namespace of the one on the first machine.
    pub first: PathBuf,
    /// The namespace of the one on the last.
    pub last: PathBuf,
    /// The address of that one.
    pub address: IpAddr,
}

impl Swarm {
    /// Starts an engine on each of these machines, and makes them a swarm.
    pub fn form(prefix: &Prefix, machines: &[&Machine]) -> Result<Self> {
        let mut swarm = Self { engines: Vec::new() };
        let mut join: Option<(String, String)> = None;
        for machine in machines {
            let mut engine = Engine::start(prefix, machine.namespace.name(), &machine.namespace)?;
            let address = machine.address.to_string();
            let own = ["--advertise-addr", &address, "--listen-addr", &address];
            let joined = match &join {
                None => engine.swarm(&[&["init"][..], &own].concat()),
                Some((token, manager)) => {
                    engine.swarm(&[&["join", "--token", token][..], &own, &[manager]].concat())
                }
            };
            joined.with_context(|| engine.log())?;
            if join.is_none() {
                join = Some((engine.run(&["swarm", "join-token", "--quiet", "worker"])?, address));
            }
            swarm.engines.push(engine);
        }
        Ok(swarm)
    }

    /// How many engines there are.
    pub fn engines(&self) -> usize {
        self.engines.len()
    }

    fn first(&self) -> Result<&Engine> {
        self.engines.first().context("a swarm without engines")
    }

    /// A container on the first machine and one on the last, joined by an overlay network.
    pub fn overlay(&mut self) -> Result<Pair> {
        let create = ["network", "create", "--driver", "overlay", "--attachable", "--subnet", "10.97.0.0/24"];
        self.first()?.run(&[&create[..], &[NETWORK]].concat())?;
        let [first, .., last] = self.engines.as_mut_slice() else { bail!("a swarm of one machine") };
        let network = format!("--network={NETWORK}");
        let start = |engine: &mut Engine, name: &str| {
            engine.container(name, &[&network]).with_context(|| engine.log())
        };
        let (last_namespace, first_namespace) = (start(last, "last")?, start(first, "first")?);
        let address = format!("{{{{(index .NetworkSettings.Networks {NETWORK:?}).IPAddress}}}}");
        let address = last.run(&["inspect", "--format", &address, "last"])?;
        let address = address.parse().with_context(|| format!("the container's address: {address:?}"))?;
        Ok(Pair { first: first_namespace, last: last_namespace, address })
    }

    /// Publishes `ports` to those of a service whose only task is on the machine of that index; the task's namespace.
    pub fn publish(&self, name: &str, index: usize, ports: (Ports, Ports)) -> Result<PathBuf> {
        let engine = self.engines.get(index).context("no such engine")?;
        let node = engine.run(&["info", "--format", "{{.Swarm.NodeID}}"])?;
        let mut words = vec!["--constraint".to_owned(), format!("node.id=={node}")];
        for (published, target, protocol) in ports.0.pairs(ports.1) {
            words.push("--publish".to_owned());
            words.push(format!("published={published},target={target},protocol={protocol}"));
        }
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.first()?.service(name, &words)?;
        self.engines.iter().try_for_each(Engine::pass_ingress_on)?;
        let filter = format!("{LABEL}={name}");
        let task = || {
            let id = engine.run(&["ps", "--quiet", "--filter", &filter])?;
            ensure!(!id.is_empty() && !id.contains('\n'), "{}", self.state(name)?);
            engine.namespace(&id)
        };
        wait("the service's task", SOON, task).with_context(|| engine.log())
    }

    fn state(&self, name: &str) -> Result<String> {
        let words = ["service", "ps", "--no-trunc", "--format", "{{.CurrentState}} {{.Error}}", name];
        self.first()?.run(&words)
    }
}
