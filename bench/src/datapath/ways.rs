//! The ways that are compared end to end, and the peers that some of them lead through.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mesh_tests::{NetNs, Task, get, interrupt, output, wait};

use super::{
    Group,
    world::{FAR, NEAR, SETTLE, World},
};
use crate::{
    load::Server,
    path::{Path, Ports, Way},
    peers::{self, Haproxy, Machine, VxlanBridge, route},
    pinning::{self, Processors},
};

/// What servers answer that are not tasks.
const STRAIGHT: &str = "straight";
const BARE: &str = "bare";
const BRIDGED: &str = "bridged";

const STRAIGHT_PORTS: Ports = Ports::from(16000);
const DIRECT_PORTS: Ports = Ports::from(13000);
const DNAT_PORTS: Ports = Ports::from(14000);
const HAPROXY_PORTS: Ports = Ports::from(15000);

/// What is compared with what.
pub struct Ways {
    // Dropped in this order: what lives in namespaces before them.
    _haproxy: Option<Haproxy>,
    _servers: Vec<Server>,
    _bridge: Option<VxlanBridge>,
    _machines: Machines,
    /// The ways of each group.
    pub paths: Vec<(Group, Vec<Path>)>,
    /// What a reader should know.
    pub notes: Vec<String>,
}

/// Machines without meshd: of the side of clients, of the side of servers, and one that has conntrack, which all of its
/// packets pay for.
struct Machines {
    asking: Machine,
    serving: Machine,
    translating: Machine,
}

impl Ways {
    /// Sets up those of `groups`; `steered` gives each machine the processor of its side for what it receives.
    pub fn set_up(world: &World, groups: &[Group], processors: Processors, steered: bool) -> Result<Self> {
        let net = world.net();
        let machines = Machines {
            asking: Machine::plug(net, 1)?,
            serving: Machine::plug(net, 2)?,
            translating: Machine::plug(net, 3)?,
        };
        if steered {
            pinning::receive_on(&machines.asking.namespace.path(), processors.client)?;
            pinning::receive_on(&machines.serving.namespace.path(), processors.server)?;
            pinning::receive_on(&machines.translating.namespace.path(), processors.server)?;
        }
        let processor = processors.server;
        let node = world.namespace(World::NEAR)?.path();
        let bare = machines.serving.namespace.path();
        let servers = vec![
            Server::start(net.prefix(), STRAIGHT, &node, STRAIGHT_PORTS.http, processor)?,
            Server::start(net.prefix(), BARE, &bare, STRAIGHT_PORTS.http, processor)?,
        ];
        let mut ways = Self {
            _haproxy: None,
            _servers: servers,
            _bridge: None,
            _machines: machines,
            paths: Vec::new(),
            notes: Vec::new(),
        };
        if groups.contains(&Group::Overlay) {
            ways.overlay(world, processor).context("the overlay and its peers")?;
        }
        if groups.contains(&Group::Published) {
            ways.published(world, processor).context("published ports and their peers")?;
        }
        ways.check()?;
        Ok(ways)
    }

    fn overlay(&mut self, world: &World, processor: usize) -> Result<()> {
        let (prefix, machines) = (world.net().prefix(), &self._machines);
        let bridge = VxlanBridge::create(prefix, [&machines.asking, &machines.serving])?;
        let (from, to) = (bridge.first.path(), bridge.second.path());
        let server = Server::start(prefix, BRIDGED, &to, Ports::USUAL.http, processor)?;
        let [asker, near] = [world.namespace(World::ASKER)?.path(), world.namespace(World::NEAR)?.path()];
        let (node, machine) = (world.net().address(World::NEAR), machines.serving.address);
        let [asking, serving] = [&machines.asking, &machines.serving].map(|m| m.namespace.path());
        let (asker_task, task) = (world.asker.namespace(), world.near.namespace());
        let address = world.near.address()?;
        let paths = vec![
            Path::plain(Way::Underlay, asking, serving, machine, STRAIGHT_PORTS, BARE),
            Path::plain(Way::NodeUnderlay, asker, near, node, STRAIGHT_PORTS, STRAIGHT),
            Path::plain(Way::Overlay, asker_task, task, address, Ports::USUAL, NEAR),
            Path::plain(Way::Bridge, from, to, VxlanBridge::SECOND, Ports::USUAL, BRIDGED),
        ];
        self._servers.push(server);
        self._bridge = Some(bridge);
        self.paths.push((Group::Overlay, paths));
        Ok(())
    }

    fn published(&mut self, world: &World, processor: usize) -> Result<()> {
        let (net, Machines { serving, translating, .. }) = (world.net(), &self._machines);
        let (client, address) = (net.client().path(), net.address(World::NEAR));
        let to_task = |way, task: &Task, address: std::net::Ipv4Addr, dialled, server| Path {
            dialled,
            udp: way != Way::Haproxy,
            ..Path::plain(way, client.clone(), task.namespace(), address, Ports::USUAL, server)
        };
        let straight = |way, to: &NetNs, address, server| {
            Path::plain(way, client.clone(), to.path(), address, STRAIGHT_PORTS, server)
        };
        let mut paths = vec![
            straight(Way::Straight, world.namespace(World::NEAR)?, address, STRAIGHT),
            straight(Way::StraightBare, &serving.namespace, serving.address, BARE),
            to_task(Way::Near, &world.near, address, World::NEAR_PORTS, NEAR),
            to_task(Way::Far, &world.far, address, World::FAR_PORTS, FAR),
        ];
        if knows_direct_return(world)? {
            world.publish(FAR, DIRECT_PORTS, ",return=direct")?;
            paths.push(to_task(Way::FarDirect, &world.far, address, DIRECT_PORTS, FAR));
        } else {
            self.notes.push("this meshctl knows no direct return, so that is not measured".to_owned());
        }
        route::lead(net, &[serving, translating], World::FAR, &world.far)?;
        let rules = net.prefix().folder().join("dnat.nft");
        peers::translate(translating, &rules, route::TASK, (DNAT_PORTS, Ports::USUAL))?;
        paths.push(to_task(Way::Dnat, &world.far, translating.address, DNAT_PORTS, FAR));
        let ports = (HAPROXY_PORTS, Ports::USUAL);
        self._haproxy = Some(Haproxy::start(net.prefix(), serving, route::TASK, ports, processor)?);
        paths.push(to_task(Way::Haproxy, &world.far, serving.address, HAPROXY_PORTS, FAR));
        self.paths.push((Group::Published, paths));
        Ok(())
    }

    /// Waits until each way leads where it should, so that nothing else is measured by mistake. One that does not is
    /// left out, and said to be.
    fn check(&mut self) -> Result<()> {
        for (_, paths) in &mut self.paths {
            for path in std::mem::take(paths) {
                match wait(path.way.title(), SETTLE, || answers(&path)) {
                    Ok(()) => paths.push(path),
                    Err(error) => {
                        interrupt::check()?;
                        self.notes.push(format!("left out: {error:#}"));
                    }
                }
            }
        }
        Ok(())
    }
}

fn answers(path: &Path) -> Result<()> {
    let said = NetNs::run_at(&path.from, || get(path.dial(|p| p.http), Duration::from_secs(1)))??;
    ensure!(said == path.server, "{said} answers, not {}", path.server);
    Ok(())
}

fn knows_direct_return(world: &World) -> Result<bool> {
    let help = output(world.meshctl()?.args(["publish", "--help"]))?;
    Ok(help.contains("return"))
}
