//! What a node with 100,000 endpoints of 10,000 services on 1,000 networks costs: `cargo run --release -p mesh-lb
//! --example scale`, as root. Makes its maps in namespaces of its own, which end with it.
#![expect(clippy::unwrap_used, reason = "a measurement ends when something fails")]
#![expect(clippy::print_stdout, reason = "prints what it measures")]

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr},
    os::fd::{AsFd, AsRawFd},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use aya::maps::{HashMap, Map, MapData};
use mesh_abi::{EndpointKey, EndpointValue, v4_mapped};
use mesh_lb::{
    Backend, BackendKey, DataPath, Desired, EndpointEntry, Frontend, NetworkEntry, NetworkPlan, NodeSettings,
    Options, PeerEntry, PublishedOn, ServiceEntry, ServicePlan, Sizes, netns_cookie,
};
use mesh_types::{Generation, LocalEndpointId, Mac, NetworkId, Protocol, ServiceId, Subnet, TaskId, Vni};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

/// Services of a network, and tasks of a service: a hundred endpoints a network.
const SERVICES: u32 = 10;
const TASKS: u32 = 10;
const PEERS: u32 = 500;

fn main() {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
    // Its folder has a mount in it and cannot be removed before; so it goes with the namespace.
    let temporary = std::env::temp_dir();
    mount(Some("tmpfs"), &temporary, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    println!(
        "{:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "endpoints", "program", "nothing", "one task", "all new", "restart", "look-up", "own MiB", "maps MiB"
    );
    let kernel = [1, 10, 100, 1000].map(measure);
    println!("\nMiB of each map, with the fewest and the most endpoints:");
    for (name, bytes) in &kernel[3] {
        println!("{name:>18} {:>7.1} {:>7.1}", mib(kernel[0][name]), mib(*bytes));
    }
}

fn measure(networks: u32) -> BTreeMap<String, u64> {
    let folder = tempfile::tempdir().unwrap();
    let bpf = folder.path().join("bpf");
    let options = || Options { sizes: Sizes::default(), ..Options::new(&bpf) };
    let resident = resident();
    let mut desired = desired(networks);
    let plans = self::resident() - resident;
    let mut path = DataPath::open(options()).unwrap();
    let program = time(|| assert!(!path.apply(&desired).unwrap().is_empty()));
    let own = self::resident() - resident - plans;
    let nothing = median((0..20).map(|_| time(|| assert!(path.apply(&desired).unwrap().is_empty()))));
    let one = median((0..20).map(|round| {
        replace_task(&mut desired, round % networks, round);
        time(|| assert!(!path.apply(&desired).unwrap().is_empty()))
    }));
    // Equal parts in other allocations, as after a restart of the planner.
    let fresh = {
        let mut fresh = desired.clone();
        fresh.networks.values_mut().for_each(|n| *n = Arc::new(NetworkPlan::clone(n)));
        fresh.services.values_mut().for_each(|s| *s = Arc::new(ServicePlan::clone(s)));
        fresh
    };
    let all = time(|| assert!(path.apply(&fresh).unwrap().is_empty()));
    let lookup = look_up(&maps(&bpf), networks);
    let kernel = memory(&maps(&bpf));
    drop(path);
    let restart = time(|| {
        let mut path = DataPath::open(options()).unwrap();
        assert!(path.apply(&desired).unwrap().is_empty());
    });
    println!(
        "{:>9} {:>9.1?} {:>9.1?} {:>9.1?} {:>9.1?} {:>9.2?} {:>9.2?} {:>9.1} {:>9.1}",
        networks * SERVICES * TASKS,
        program,
        nothing,
        one,
        all,
        restart,
        lookup,
        mib(own),
        mib(kernel.values().sum()),
    );
    DataPath::remove_pins(&bpf).unwrap();
    kernel
}

fn maps(bpf: &Path) -> std::path::PathBuf {
    bpf.join(format!("v{}", mesh_abi::LAYOUT_VERSION))
}

fn address(network: u32, n: u32) -> Ipv4Addr {
    Ipv4Addr::from((10 << 24) + (network << 8) + n + 1)
}

fn vtep(n: u32) -> IpAddr {
    Ipv4Addr::from((172 << 24) + (16 << 16) + n % PEERS + 1).into()
}

fn vni(network: u32) -> Vni {
    Vni::new(Vni::FIRST.get() + network).unwrap()
}

fn backend(network: u32, n: u32, generation: u32) -> Backend {
    let task = u128::from(generation) << 64 | u128::from(network * 1000 + n);
    Backend {
        key: BackendKey(TaskId::from_u128(task), NetworkId::from_u128(network.into())),
        vni: vni(network),
        address: address(network, n).into(),
        vtep: vtep(network + n + generation),
        ifindex: None,
        endpoint: LocalEndpointId(n + 1),
        generation: Generation(generation as u16 + 1),
        draining: false,
        weight: 1,
    }
}

fn endpoint(backend: &Backend) -> EndpointEntry {
    EndpointEntry { vtep: backend.vtep, mac: Mac::of_address(backend.address), ifindex: None }
}

fn service(network: u32, service: u32, backends: Vec<Backend>) -> ServicePlan {
    let number = network * SERVICES + service;
    let entry = |target_port, backends| ServiceEntry { affinity: None, direct: false, target_port, backends };
    let vip = Frontend::Vip { vni: vni(network), address: address(network, 200 + service).into() };
    let port = 1024 + number as u16;
    let published = Frontend::Published { on: PublishedOn::AnyV4, port, protocol: Protocol::Tcp };
    let frontends = [(vip, entry(None, backends.clone())), (published, entry(Some(80), backends))].into();
    ServicePlan { number, frontends }
}

fn desired(networks: u32) -> Desired {
    let mut desired = Desired::new(NodeSettings {
        vtep: Ipv4Addr::new(172, 31, 0, 1).into(),
        uplink_ifindex: 1,
        vxlan_ifindex: 0,
        host_ifindex: 0,
        host_mac: Mac([0; 6]),
        inner_mtu: 1450,
        vxlan_port: 4789,
        netns_cookie: netns_cookie().unwrap(),
        fast_path: true,
        outer_checksum: false,
    });
    desired.peers = (0..PEERS).map(|n| (vtep(n), PeerEntry::default())).collect();
    for network in 0..networks {
        let all: Vec<Backend> = (0..SERVICES * TASKS).map(|n| backend(network, n, 0)).collect();
        let subnet = format!("10.{}.{}.0/24", network >> 8, network & 255).parse().unwrap();
        let subnet = Subnet::new(subnet, None).unwrap();
        let entry = NetworkEntry { v4: Some(subnet), v6: None, internal: false };
        let endpoints: BTreeMap<IpAddr, EndpointEntry> =
            all.iter().map(|b| (b.address, endpoint(b))).collect();
        desired.networks.insert(vni(network), Arc::new(NetworkPlan { entry, endpoints }));
        for (n, backends) in (0..).zip(all.chunks(TASKS as usize)) {
            let id = ServiceId::from_u128((network * SERVICES + n).into());
            desired.services.insert(id, Arc::new(service(network, n, backends.to_vec())));
        }
    }
    desired
}

/// Another task, on another node, in place of the first one of a network.
fn replace_task(desired: &mut Desired, network: u32, round: u32) {
    let new = backend(network, 0, round + 1);
    let plan = desired.networks.get_mut(&vni(network)).unwrap();
    Arc::make_mut(plan).endpoints.insert(new.address, endpoint(&new));
    let id = ServiceId::from_u128((network * SERVICES).into());
    let plan = Arc::make_mut(desired.services.get_mut(&id).unwrap());
    plan.frontends.values_mut().for_each(|entry| entry.backends[0] = new);
}

/// Time of one look-up from user space, over all endpoints in an order without any; the system call is most of it.
fn look_up(maps: &Path, networks: u32) -> Duration {
    let map = Map::from_map_data(MapData::from_pin(maps.join("ENDPOINTS")).unwrap()).unwrap();
    let map: HashMap<_, EndpointKey, EndpointValue> = map.try_into().unwrap();
    const LOOK_UPS: u32 = 200_000;
    let took = time(|| {
        for n in 0..LOOK_UPS {
            let n = n.wrapping_mul(0x9e37_79b1) % (networks * SERVICES * TASKS);
            let (network, n) = (n / (SERVICES * TASKS), n % (SERVICES * TASKS));
            let key = EndpointKey {
                vni: vni(network).get().to_be_bytes(),
                address: v4_mapped(address(network, n).octets()),
            };
            map.get(&key, 0).unwrap();
        }
    });
    took / LOOK_UPS
}

/// Bytes of kernel memory that the maps take, as the kernel tells them, by name.
fn memory(maps: &Path) -> BTreeMap<String, u64> {
    let of = |pin: &Path| {
        let map = MapData::from_pin(pin).unwrap();
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", map.fd().as_fd().as_raw_fd())).unwrap();
        let line = info.lines().find_map(|line| line.strip_prefix("memlock:"));
        line.unwrap().trim().parse::<u64>().unwrap()
    };
    // Programs are pinned in a folder beside the maps.
    let pins = fs::read_dir(maps).unwrap().map(|pin| pin.unwrap());
    let pins = pins.filter(|pin| pin.file_type().unwrap().is_file());
    pins.map(|pin| (pin.file_name().into_string().unwrap(), of(&pin.path()))).collect()
}

/// Bytes of this process that are in memory.
fn resident() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn time(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn median(times: impl Iterator<Item = Duration>) -> Duration {
    let mut times: Vec<_> = times.collect();
    times.sort();
    times[times.len() / 2]
}
