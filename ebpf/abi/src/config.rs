//! The node itself and its peers.

use crate::Address;

/// Bits of [`NodeConfig::flags`].
pub mod node_flags {
    /// Send and receive by the fast path: outer headers written and stripped by the programs themselves.
    pub const FAST_PATH: u32 = 1;
    /// Some published port is open on one address only: look for it before the one that is open on all.
    pub const ADDRESSED_PORTS: u32 = 2;
    /// The VTEP is an IPv6 address.
    pub const UNDERLAY_V6: u32 = 4;
    /// Peers are reached by different interfaces: [`super::PeerValue::ifindex`] tells by which.
    pub const MANY_UPLINKS: u32 = 8;
    /// The VXLAN device writes outer UDP checksums. Never together with [`FAST_PATH`].
    pub const OUTER_CHECKSUM: u32 = 16;
}

/// `CONFIG[0]`: what every program must know of its node. All zero means: not configured, pass everything.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeConfig {
    /// Cookie of the node's network namespace, which the cgroup programs compare with that of the calling socket.
    pub netns_cookie: u64,
    /// Bits of [`node_flags`].
    pub flags: u32,
    /// Interface that holds the VTEP address.
    pub uplink_ifindex: u32,
    /// The flow-based VXLAN device: the general path.
    pub vxlan_ifindex: u32,
    /// Host link (`mesh-host`): host sockets on one side.
    pub host_ifindex: u32,
    /// Largest inner IP packet in bytes that crosses the underlay whole: the uplink's MTU less the overhead.
    pub inner_mtu: u32,
    /// Half the length of `CHOICES`, a power of two, less one.
    pub choice_mask: u32,
    /// Zero.
    pub reserved3: u32,
    /// UDP port of VXLAN, network order.
    pub vxlan_port: [u8; 2],
    /// Zero.
    pub reserved: [u8; 2],
    /// The node's VTEP address.
    pub vtep: Address,
    /// Ethernet address of the host link's host side, to which replies to host sockets go.
    pub host_mac: [u8; 6],
    /// Zero.
    pub reserved2: [u8; 2],
}

/// Key of `PEERS`: the VTEP address of another node. Packets from unlisted senders are dropped.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerKey {
    /// The VTEP address.
    pub vtep: Address,
}

/// Value of `PEERS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerValue {
    /// Interface by which the peer is reached; 0 for [`NodeConfig::uplink_ifindex`].
    pub ifindex: u32,
}

/// Key of `HOST_ADDRESSES`: an address of the node itself; a published port is open on each. Its value is a `u32` of 1.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostAddressKey {
    /// The address.
    pub address: Address,
}
