//! The ways that are compared end to end, and the peers that some of them lead through.

use std::{path::Path as FilePath, time::Duration};

use anyhow::{Context, Result, anyhow, ensure};
use mesh_tests::{NetNs, Prefix, Task, TestNet, get, interrupt, output, wait};

use super::{
    Group,
    world::{FAR, NEAR, SETTLE, World},
};
use crate::{
    load::Server,
    path::{Path, Ports, Way},
    peers::{self, Haproxy, Machine, Swarm, VxlanBridge, ipvs, route},
    pinning::{self, Processors},
};

/// What servers answer that are not tasks.
const STRAIGHT: &str = "straight";
const BARE: &str = "bare";
const BRIDGED: &str = "bridged";
const SWARMED: &str = "swarmed";
const SWARM_NEAR: &str = "swarm-near";
const SWARM_FAR: &str = "swarm-far";

const STRAIGHT_PORTS: Ports = Ports::from(16000);
const DIRECT_PORTS: Ports = Ports::from(13000);
const DNAT_PORTS: Ports = Ports::from(14000);
const HAPROXY_PORTS: Ports = Ports::from(15000);
const IPVS_PORTS: Ports = Ports::from(17000);
const SWARM_NEAR_PORTS: Ports = Ports::from(18000);
const SWARM_FAR_PORTS: Ports = Ports::from(19000);

/// What is compared with what.
pub struct Ways {
    // Dropped in this order: what lives in namespaces before them.
    _haproxy: Option<Haproxy>,
    _servers: Vec<Server>,
    _bridge: Option<VxlanBridge>,
    swarm: Option<Result<Swarm, String>>,
    machines: Machines,
    groups: Vec<Group>,
    processor: usize,
    /// The ways of each group.
    pub paths: Vec<(Group, Vec<Path>)>,
    /// What a reader should know.
    pub notes: Vec<String>,
}

/// Machines without meshd. Those that translate are apart, since all of their packets pay for it.
struct Machines {
    /// Of the side of clients.
    asking: Machine,
    /// Of the side of servers, as the others.
    serving: Machine,
    nftables: Machine,
    ipvs: Machine,
    /// A swarm's, on the side of clients.
    swarm_asking: Machine,
    /// A swarm's that clients speak to.
    swarm_entry: Machine,
    /// A swarm's that has the tasks.
    swarm_home: Machine,
}

impl Machines {
    fn plug(net: &TestNet) -> Result<Self> {
        let plug = |number| Machine::plug(net, number);
        Ok(Self {
            asking: plug(1)?,
            serving: plug(2)?,
            nftables: plug(3)?,
            ipvs: plug(4)?,
            swarm_asking: plug(5)?,
            swarm_entry: plug(6)?,
            swarm_home: plug(7)?,
        })
    }

    fn steer(&self, processors: Processors) -> Result<()> {
        let Self { asking, serving, nftables, ipvs, swarm_asking, swarm_entry, swarm_home } = self;
        for (machines, processor) in [
            (&[asking, swarm_asking][..], processors.client),
            (&[serving, nftables, ipvs, swarm_entry, swarm_home], processors.server),
        ] {
            for machine in machines {
                pinning::receive_on(&machine.namespace.path(), processor)?;
            }
        }
        Ok(())
    }
}

impl Ways {
    /// Sets up those of `groups`; `steered` gives each machine the processor of its side for what it receives.
    ///
    /// A peer that cannot be had is left out, and said to be.
    pub fn set_up(world: &World, groups: &[Group], processors: Processors, steered: bool) -> Result<Self> {
        let net = world.net();
        let machines = Machines::plug(net)?;
        if steered {
            machines.steer(processors)?;
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
            swarm: None,
            machines,
            groups: groups.to_vec(),
            processor,
            paths: Vec::new(),
            notes: Vec::new(),
        };
        if groups.contains(&Group::Overlay) {
            ways.overlay(world).context("the overlay and its peers")?;
        }
        if groups.contains(&Group::Published) {
            ways.published(world).context("published ports and their peers")?;
        }
        ways.check()?;
        Ok(ways)
    }

    fn overlay(&mut self, world: &World) -> Result<()> {
        let [asker, near] = [world.namespace(World::ASKER)?.path(), world.namespace(World::NEAR)?.path()];
        let (node, machine) = (world.net().address(World::NEAR), self.machines.serving.address);
        let [asking, serving] = [&self.machines.asking, &self.machines.serving].map(|m| m.namespace.path());
        let (asker_task, task) = (world.asker.namespace(), world.near.namespace());
        let address = world.near.address()?;
        let mut paths = vec![
            Path::plain(Way::Underlay, asking, serving, machine, STRAIGHT_PORTS, BARE),
            Path::plain(Way::NodeUnderlay, asker, near, node, STRAIGHT_PORTS, STRAIGHT),
            Path::plain(Way::Overlay, asker_task, task, address, Ports::USUAL, NEAR),
        ];
        let prefix = world.net().prefix();
        self.peer(Way::Bridge, &mut paths, |ways| ways.bridge(prefix))?;
        self.peer(Way::DockerOverlay, &mut paths, |ways| ways.docker_overlay(prefix))?;
        self.paths.push((Group::Overlay, paths));
        Ok(())
    }

    /// Adds a peer's way, or a note that says why there is none.
    fn peer(
        &mut self,
        way: Way,
        paths: &mut Vec<Path>,
        set_up: impl FnOnce(&mut Self) -> Result<Path>,
    ) -> Result<()> {
        let made = set_up(self);
        interrupt::check()?;
        match made {
            Ok(path) => paths.push(path),
            Err(error) => self.notes.push(format!("left out: {}: {error:#}", way.title())),
        }
        Ok(())
    }

    fn bridge(&mut self, prefix: &Prefix) -> Result<Path> {
        let bridge = VxlanBridge::create(prefix, [&self.machines.asking, &self.machines.serving])?;
        let (from, to) = (bridge.first.path(), bridge.second.path());
        self._bridge = Some(bridge);
        self.serve(prefix, BRIDGED, &to)?;
        Ok(Path::plain(Way::Bridge, from, to, VxlanBridge::SECOND, Ports::USUAL, BRIDGED))
    }

    fn docker_overlay(&mut self, prefix: &Prefix) -> Result<Path> {
        let pair = self.swarm(prefix)?.overlay()?;
        self.serve(prefix, SWARMED, &pair.last)?;
        let (from, to) = (pair.first, pair.last);
        Ok(Path::plain(Way::DockerOverlay, from, to, pair.address, Ports::USUAL, SWARMED))
    }

    /// The swarm, formed when it is first wanted. For an overlay its first and last engine are used, for ingress the
    /// last two.
    fn swarm(&mut self, prefix: &Prefix) -> Result<&mut Swarm> {
        let Self { machines, groups, swarm, .. } = self;
        let formed = swarm.get_or_insert_with(|| {
            let mut places = Vec::new();
            if groups.contains(&Group::Overlay) {
                places.push(&machines.swarm_asking);
            }
            if groups.contains(&Group::Published) && ipvs::available() {
                places.push(&machines.swarm_entry);
            }
            places.push(&machines.swarm_home);
            Swarm::form(prefix, &places).map_err(|error| format!("{error:#}"))
        });
        formed.as_mut().map_err(|error| anyhow!("{error}"))
    }

    /// Starts a web server of that name in a peer's namespace.
    fn serve(&mut self, prefix: &Prefix, name: &str, namespace: &FilePath) -> Result<()> {
        let server = Server::start(prefix, name, namespace, Ports::USUAL.http, self.processor)?;
        self._servers.push(server);
        Ok(())
    }

    fn published(&mut self, world: &World) -> Result<()> {
        let net = world.net();
        let (client, address) = (net.client().path(), net.address(World::NEAR));
        let to_task = |way, task: &Task, address: std::net::Ipv4Addr, dialled, server| Path {
            dialled,
            udp: way != Way::Haproxy,
            ..Path::plain(way, client.clone(), task.namespace(), address, Ports::USUAL, server)
        };
        let straight = |way, to: &NetNs, address, server| {
            Path::plain(way, client.clone(), to.path(), address, STRAIGHT_PORTS, server)
        };
        let serving = &self.machines.serving;
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
        let Machines { serving, nftables, ipvs, .. } = &self.machines;
        route::lead(net, &[serving, nftables, ipvs], World::FAR, &world.far)?;
        let file = |name: &str| net.prefix().folder().join(name);
        self.peer(Way::Dnat, &mut paths, |ways| {
            let machine = &ways.machines.nftables;
            peers::translate(machine, &file("dnat.nft"), route::TASK, (DNAT_PORTS, Ports::USUAL))?;
            Ok(to_task(Way::Dnat, &world.far, machine.address, DNAT_PORTS, FAR))
        })?;
        self.peer(Way::Haproxy, &mut paths, |ways| {
            let (machine, ports) = (&ways.machines.serving, (HAPROXY_PORTS, Ports::USUAL));
            ways._haproxy = Some(Haproxy::start(net.prefix(), machine, route::TASK, ports, ways.processor)?);
            Ok(to_task(Way::Haproxy, &world.far, machine.address, HAPROXY_PORTS, FAR))
        })?;
        if !ipvs::available() {
            let all = "left out: IPVS and Docker Swarm's ingress: this kernel has no IPVS; `cargo xtask vm-test --bench` has one that does";
            self.notes.push(all.to_owned());
        } else {
            self.peer(Way::Ipvs, &mut paths, |ways| {
                let machine = &ways.machines.ipvs;
                ipvs::balance(machine, &file("ipvs.nft"), route::TASK, (IPVS_PORTS, Ports::USUAL))?;
                Ok(to_task(Way::Ipvs, &world.far, machine.address, IPVS_PORTS, FAR))
            })?;
            let ingress =
                [(Way::SwarmNear, SWARM_NEAR, SWARM_NEAR_PORTS), (Way::SwarmFar, SWARM_FAR, SWARM_FAR_PORTS)];
            for (way, name, ports) in ingress {
                self.peer(way, &mut paths, |ways| ways.ingress(net, way, name, ports))?;
            }
        }
        self.paths.push((Group::Published, paths));
        Ok(())
    }

    /// A service of the swarm.
    fn ingress(&mut self, net: &TestNet, way: Way, name: &'static str, dialled: Ports) -> Result<Path> {
        let swarm = self.swarm(net.prefix())?;
        let home = swarm.engines().saturating_sub(if way == Way::SwarmNear { 2 } else { 1 });
        let to = swarm.publish(name, home, (dialled, Ports::USUAL))?;
        self.serve(net.prefix(), name, &to)?;
        let address = self.machines.swarm_entry.address;
        Ok(Path { dialled, ..Path::plain(way, net.client().path(), to, address, Ports::USUAL, name) })
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
