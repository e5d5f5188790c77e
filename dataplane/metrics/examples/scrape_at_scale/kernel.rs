//! A data path with many endpoints, in namespaces of its own; no packet passes.

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc};

use mesh_lb::{
    DataPath, Desired, EndpointEntry, Frontend, LocalEntry, NetworkEntry, NetworkPlan, NodeSettings, Options,
    ServiceEntry, ServicePlan, Traffic, netns_cookie,
};
use mesh_types::{Generation, LocalEndpointId, Mac, ServiceId, Subnet, Vni};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

/// See the module.
pub struct Node {
    data_path: DataPath,
    _folder: tempfile::TempDir,
}

impl Node {
    /// With so many endpoints, and a service for ten of them.
    pub fn with(count: u32) -> Self {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
        // Its folder has a mount in it and cannot be removed before; so it goes with the namespace.
        let temporary = std::env::temp_dir();
        mount(Some("tmpfs"), &temporary, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        let up = std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap();
        assert!(up.success(), "the loopback interface stays down");
        let folder = tempfile::tempdir().unwrap();
        let mut options = Options::new(folder.path().join("bpf"));
        options.sizes.local_endpoints = count.next_power_of_two();
        let mut data_path = DataPath::open(options).unwrap();
        data_path.apply(&desired(count)).unwrap();
        Self { data_path, _folder: folder }
    }

    /// What each endpoint carried; reads the rest of what a scrape reads too.
    pub fn traffic(&self) -> BTreeMap<LocalEndpointId, Traffic> {
        self.data_path.service_traffic().unwrap();
        self.data_path.counts().unwrap();
        self.data_path.program_stats().unwrap();
        self.data_path.endpoint_traffic().unwrap().into_iter().collect()
    }

    /// Reads what a scrape reads; how many endpoints and frontends there are.
    pub fn read(&self) -> usize {
        let endpoints = self.data_path.endpoint_traffic().unwrap();
        let services = self.data_path.service_traffic().unwrap();
        self.data_path.counts().unwrap();
        self.data_path.program_stats().unwrap();
        endpoints.len() + services.len()
    }
}

fn address(index: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 0)) + index)
}

fn desired(count: u32) -> Desired {
    let mut desired = Desired::new(NodeSettings {
        vtep: Ipv4Addr::new(192, 0, 2, 1).into(),
        uplink_ifindex: 2,
        vxlan_ifindex: 0,
        host_ifindex: 0,
        host_mac: Mac([0; 6]),
        inner_mtu: 1450,
        vxlan_port: 4789,
        netns_cookie: netns_cookie().unwrap(),
        fast_path: true,
        outer_checksum: false,
    });
    let mac = Mac([2, 0, 0, 0, 0, 5]);
    let mut endpoints = BTreeMap::new();
    for index in 1..=count {
        let local = LocalEntry {
            vni: Vni::FIRST,
            v4: Some(address(index)),
            v6: None,
            mac,
            ifindex: 100 + index,
            generation: Generation(1),
            egress4: None,
            egress6: None,
            served: true,
        };
        desired.local.insert(LocalEndpointId(index), local);
        let entry = EndpointEntry { vtep: desired.config.vtep, mac, ifindex: Some(100 + index) };
        endpoints.insert(address(index).into(), entry);
    }
    let subnet = Subnet::new("10.0.0.0/14".parse().unwrap(), None).unwrap();
    let entry = NetworkEntry { v4: Some(subnet), v6: None, internal: false };
    desired.networks.insert(Vni::FIRST, Arc::new(NetworkPlan { entry, endpoints }));
    for number in 1..=count.div_ceil(10) {
        let vip = Frontend::Vip { vni: Vni::FIRST, address: address((2 << 16) + number).into() };
        let entry = ServiceEntry { affinity: None, direct: false, target_port: None, backends: Vec::new() };
        let plan = ServicePlan { number, frontends: [(vip, entry)].into() };
        desired.services.insert(ServiceId::from_u128(number.into()), Arc::new(plan));
    }
    desired
}
