//! Ethernet addresses that carry meaning.

/// Address of every network's gateway, VIPs included.
pub const GATEWAY_MAC: [u8; 6] = [0x02, 0x6d, 0x65, 0x73, 0x68, 0x01];

/// What the client spoke to, and so how the reply must go back.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SteeringKind {
    /// A published port, from outside.
    Published = 0,
    /// A VIP, from a task of the same network.
    Vip = 1,
    /// A published port, from a socket of the sending node.
    Host = 2,
    /// A published port, from outside; the reply leaves by the task's own node.
    Direct = 3,
}

/// How far the search for a task is.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The sender has chosen.
    First = 0,
    /// The sender has chosen once more, after a refusal.
    Second = 1,
    /// Sent back, as it came, to the node that chose: the endpoint is gone.
    Refused = 2,
    /// The same after the second choice.
    RefusedAgain = 3,
}

/// The choice of the sending node, carried in the inner Ethernet addresses of the ingress and return VNIs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steering {
    /// The endpoint's id on the receiving node.
    pub endpoint: u32,
    /// Which use of that id.
    pub generation: u16,
    /// What the client spoke to.
    pub kind: SteeringKind,
    /// How often it was chosen, or refused.
    pub turn: Turn,
    /// The port that the endpoint listens on, network order; zero when the receiving node knows, because the port is
    /// published on all addresses of all nodes, or when the client spoke to a VIP.
    pub target_port: [u8; 2],
    /// The network of a VIP; zero for published ports.
    pub vni: [u8; 4],
}

/// First two bytes of both addresses: locally administered, and ours.
const PREFIX: [u8; 2] = [0x02, 0x6d];
/// In place of the source's first byte: the second and the last are the target port.
const WITH_PORT: u8 = 0x06;
/// In place of the source's first byte's lower half: the upper half, that of the fifth, the second and the last byte are
/// the VNI.
const WITH_VNI: u8 = 0x0a;

impl Steering {
    /// The first choice of an endpoint, for a published port that its node knows.
    pub const fn to(endpoint: u32, generation: u16, kind: SteeringKind) -> Self {
        Self { endpoint, generation, kind, turn: Turn::First, target_port: [0; 2], vni: [0; 4] }
    }

    /// Destination and source address, in the order of an Ethernet header.
    #[inline(always)]
    pub fn encode(self) -> [u8; 12] {
        let [a, b, c, d] = self.endpoint.to_be_bytes();
        let [g, h] = self.generation.to_be_bytes();
        let [p, q] = PREFIX;
        let what = self.kind as u8 | (self.turn as u8) << 2;
        match (self.kind, self.target_port) {
            (SteeringKind::Vip, _) => {
                let [_, x, y, z] = self.vni;
                [p, q, a, b, c, d, WITH_VNI | x & 0xf0, y, g, h, what | x << 4, z]
            }
            (_, [0, 0]) => [p, q, a, b, c, d, p, q, g, h, what, 0],
            (_, [x, y]) => [p, q, a, b, c, d, WITH_PORT, x, g, h, what, y],
        }
    }

    /// Reads both addresses; `None` when they are not of this form.
    #[inline(always)]
    pub fn decode(macs: &[u8; 12]) -> Option<Self> {
        if macs[0] != PREFIX[0] || macs[1] != PREFIX[1] {
            return None;
        }
        let kind = match macs[10] & 3 {
            0 => SteeringKind::Published,
            1 => SteeringKind::Vip,
            2 => SteeringKind::Host,
            _ => SteeringKind::Direct,
        };
        let turn = match macs[10] >> 2 & 3 {
            0 => Turn::First,
            1 => Turn::Second,
            2 => Turn::Refused,
            _ => Turn::RefusedAgain,
        };
        let (mut target_port, mut vni) = ([0; 2], [0; 4]);
        if matches!(kind, SteeringKind::Vip) {
            if macs[6] & 0x0f != WITH_VNI {
                return None;
            }
            vni = [0, macs[6] & 0xf0 | macs[10] >> 4, macs[7], macs[11]];
        } else {
            match (macs[6], macs[7], macs[10] >> 4, macs[11]) {
                (WITH_PORT, x, 0, y) => target_port = [x, y],
                (p, q, 0, 0) if [p, q] == PREFIX => {}
                _ => return None,
            }
        }
        Some(Self {
            endpoint: u32::from_be_bytes([macs[2], macs[3], macs[4], macs[5]]),
            generation: u16::from_be_bytes([macs[8], macs[9]]),
            kind,
            turn,
            target_port,
            vni,
        })
    }
}
