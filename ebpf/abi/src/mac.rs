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

/// The choice of the sending node, carried in the inner Ethernet addresses of the ingress and return VNIs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steering {
    /// The endpoint's id on the receiving node.
    pub endpoint: u32,
    /// Which use of that id.
    pub generation: u16,
    /// What the client spoke to.
    pub kind: SteeringKind,
    /// The port that the endpoint listens on, network order; zero when the receiving node knows, because the port is
    /// published on all addresses of all nodes.
    pub target_port: [u8; 2],
}

/// First two bytes of both addresses: locally administered, and ours.
const PREFIX: [u8; 2] = [0x02, 0x6d];
/// In place of the source's first byte: the second and the last are the target port.
const WITH_PORT: u8 = 0x06;

impl Steering {
    /// Destination and source address, in the order of an Ethernet header.
    #[inline(always)]
    pub fn encode(self) -> [u8; 12] {
        let [a, b, c, d] = self.endpoint.to_be_bytes();
        let [g, h] = self.generation.to_be_bytes();
        let [p, q] = PREFIX;
        match self.target_port {
            [0, 0] => [p, q, a, b, c, d, p, q, g, h, self.kind as u8, 0],
            [x, y] => [p, q, a, b, c, d, WITH_PORT, x, g, h, self.kind as u8, y],
        }
    }

    /// Reads both addresses; `None` when they are not of this form.
    #[inline(always)]
    pub fn decode(macs: &[u8; 12]) -> Option<Self> {
        if macs[0] != PREFIX[0] || macs[1] != PREFIX[1] {
            return None;
        }
        let target_port = match (macs[6], macs[7], macs[11]) {
            (WITH_PORT, x, y) => [x, y],
            (p, q, 0) if [p, q] == PREFIX => [0; 2],
            _ => return None,
        };
        let kind = match macs[10] {
            0 => SteeringKind::Published,
            1 => SteeringKind::Vip,
            2 => SteeringKind::Host,
            3 => SteeringKind::Direct,
            _ => return None,
        };
        Some(Self {
            endpoint: u32::from_be_bytes([macs[2], macs[3], macs[4], macs[5]]),
            generation: u16::from_be_bytes([macs[8], macs[9]]),
            kind,
            target_port,
        })
    }
}
