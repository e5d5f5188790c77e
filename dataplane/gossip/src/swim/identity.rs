//! Who a member is: on the wire and to the core with its address, to foca without. foca keeps every member in one list and looks
//! through it for most packets, so that what an entry takes is both memory and time.

use std::net::SocketAddr;

use foca::{Header, Member, Message};
use mesh_types::NodeId;
use serde::{Deserialize, Serialize};

/// Who a member is: the node, unique; the rest says which of its lives is the newest, and where it is in that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) node: NodeId,
    pub(crate) addr: SocketAddr,
    /// The incarnation of the process.
    pub(crate) epoch: u64,
    /// Counts how often it came back after others took it for dead.
    pub(crate) renewal: u32,
}

impl Identity {
    pub(super) fn life(&self) -> Life {
        Life {
            node: self.node.as_u128().to_ne_bytes(),
            epoch: self.epoch.to_ne_bytes(),
            renewal: self.renewal,
        }
    }
}

/// For its codec alone, which writes identities with their addresses.
impl foca::Identity for Identity {
    type Addr = NodeId;

    fn renew(&self) -> Option<Self> {
        self.renewal.checked_add(1).map(|renewal| Self { renewal, ..*self })
    }

    fn addr(&self) -> NodeId {
        self.node
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        (self.epoch, self.renewal) > (adversary.epoch, adversary.renewal)
    }
}

/// One life of a node: what foca keeps, in 28 bytes. Its address follows from it, and is kept beside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Life {
    node: [u8; 16],
    epoch: [u8; 8],
    renewal: u32,
}

impl Life {
    pub(super) fn node(&self) -> NodeId {
        NodeId::from_u128(u128::from_ne_bytes(self.node))
    }

    /// Later ones are greater.
    pub(super) fn age(&self) -> (u64, u32) {
        (u64::from_ne_bytes(self.epoch), self.renewal)
    }

    pub(super) fn at(&self, addr: SocketAddr) -> Identity {
        let (epoch, renewal) = self.age();
        Identity { node: self.node(), addr, epoch, renewal }
    }
}

impl foca::Identity for Life {
    type Addr = NodeId;

    fn renew(&self) -> Option<Self> {
        self.renewal.checked_add(1).map(|renewal| Self { renewal, ..*self })
    }

    fn addr(&self) -> NodeId {
        self.node()
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.age() > adversary.age()
    }
}

/// The same header with other identities.
pub(super) fn header<A, B, E>(
    header: Header<A>,
    mut of: impl FnMut(A) -> Result<B, E>,
) -> Result<Header<B>, E> {
    let Header { src, src_incarnation, dst, message } = header;
    let message = match message {
        Message::PingReq { target, probe_number } => Message::PingReq { target: of(target)?, probe_number },
        Message::IndirectPing { origin, probe_number } => {
            Message::IndirectPing { origin: of(origin)?, probe_number }
        }
        Message::IndirectAck { target, probe_number } => {
            Message::IndirectAck { target: of(target)?, probe_number }
        }
        Message::ForwardedAck { origin, probe_number } => {
            Message::ForwardedAck { origin: of(origin)?, probe_number }
        }
        Message::Ping(number) => Message::Ping(number),
        Message::Ack(number) => Message::Ack(number),
        Message::Announce => Message::Announce,
        Message::Feed => Message::Feed,
        Message::Gossip => Message::Gossip,
        Message::Broadcast => Message::Broadcast,
        Message::TurnUndead => Message::TurnUndead,
    };
    Ok(Header { src: of(src)?, src_incarnation, dst: of(dst)?, message })
}

/// The same state of another identity.
pub(super) fn member<A, B>(member: &Member<A>, of: B) -> Member<B> {
    Member::new(of, member.incarnation(), member.state())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foca_keeps_little_of_a_member() {
        assert_eq!(size_of::<Member<Life>>(), 32);
        let addr = SocketAddr::from(([10, 0, 0, 1], 7946));
        let identity =
            Identity { node: NodeId::from_u128(u128::MAX - 5), addr, epoch: u64::MAX - 7, renewal: 3 };
        assert_eq!(identity.life().at(addr), identity);
    }
}
