//! Who there is, and under which addresses.

use std::net::{IpAddr, Ipv6Addr};

use mesh_abi::{
    ANY_V4, Address, EGRESS_POOL6, HOST_SERVICE_ADDRESS, HOST_SERVICE_ADDRESS6, PUBLISHED, ServiceKey,
    v4_mapped,
};

use crate::packets::{Ip, Mac};

pub const VNI: [u8; 4] = [0, 0, 0x10, 0];
pub const VNI_NUMBER: u32 = 4096;
pub const GATEWAY: Ip = [10, 10, 3, 1];
pub const VIP: Ip = [10, 10, 3, 2];
pub const EMPTY_VIP: Ip = [10, 10, 3, 3];
/// Published ports: to a task on either node, and to nobody.
pub const PORT_1: u16 = 8081;
pub const PORT_2: u16 = 8082;
pub const PORT_NONE: u16 = 8083;
pub const TARGET: u16 = 80;
pub const HOST_MAC: Mac = [2, 0, 0, 0, 0xaa, 1];
pub const CLIENT: Ip = [203, 0, 113, 9];
pub const INNER_MTU: u32 = 1450;

/// A task: `a` and `b` are on node 1, `c` is on node 2.
#[derive(Clone, Copy, Debug)]
pub struct Task {
    pub node: u8,
    pub id: u32,
    pub address: Ip,
    pub mac: Mac,
}

pub const A: Task = Task { node: 1, id: 11, address: [10, 10, 3, 11], mac: [2, 0, 0, 0, 3, 11] };
pub const B: Task = Task { node: 1, id: 12, address: [10, 10, 3, 12], mac: [2, 0, 0, 0, 3, 12] };
pub const C: Task = Task { node: 2, id: 13, address: [10, 10, 3, 13], mac: [2, 0, 0, 0, 3, 13] };
pub const GENERATION: u16 = 7;

/// The VTEP address of a node.
pub fn vtep(node: u8) -> Ip {
    [192, 0, 2, node]
}

/// A family of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

pub const BOTH: [Family; 2] = [Family::V4, Family::V6];
pub const SCTP: u8 = 132;

impl Task {
    /// Its address of a family.
    pub fn at(self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.address.into(),
            Family::V6 => task_address6(self.address[3]),
        }
    }
}

/// An address of a node, by which published ports are reached, too.
pub fn node_address(number: u8, family: Family) -> IpAddr {
    match family {
        Family::V4 => vtep(number).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number.into()).into(),
    }
}

pub(super) fn task_address6(last: u8) -> IpAddr {
    Ipv6Addr::new(0xfd10, 3, 0, 0, 0, 0, 0, last.into()).into()
}

pub fn gateway(family: Family) -> IpAddr {
    match family {
        Family::V4 => GATEWAY.into(),
        Family::V6 => task_address6(1),
    }
}

pub fn vip(family: Family) -> IpAddr {
    match family {
        Family::V4 => VIP.into(),
        Family::V6 => task_address6(2),
    }
}

/// Somebody outside.
pub fn client(family: Family) -> IpAddr {
    match family {
        Family::V4 => CLIENT.into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 9).into(),
    }
}

/// The address by which host sockets reach published ports.
pub fn host_service(family: Family) -> IpAddr {
    match family {
        Family::V4 => HOST_SERVICE_ADDRESS.into(),
        Family::V6 => HOST_SERVICE_ADDRESS6.into(),
    }
}

/// The address that stands for a task outside.
pub fn egress_of(task: Task, family: Family) -> IpAddr {
    let mut pool = EGRESS_POOL6.0;
    pool[15] = task.id as u8;
    match family {
        Family::V4 => egress(task).into(),
        Family::V6 => pool.into(),
    }
}

/// An address as maps hold it.
pub fn mapped(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(v4) => v4_mapped(v4.octets()),
        IpAddr::V6(v6) => v6.octets(),
    }
}

pub fn egress(task: Task) -> Ip {
    [169, 254, 64, task.id as u8]
}

pub fn vip_key(address: Ip) -> ServiceKey {
    ServiceKey { vni: VNI, address: v4_mapped(address), ..ServiceKey::default() }
}

pub fn port_key(port: u16, protocol: u8) -> ServiceKey {
    ServiceKey { vni: PUBLISHED, address: ANY_V4, port: port.to_be_bytes(), protocol, reserved: 0 }
}
