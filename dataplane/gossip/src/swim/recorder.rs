//! foca's codec: postcard, with an eye on what passes. It puts addresses to the lives that foca knows members by, and keeps what
//! is known of each.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::{Buf, BufMut};
use foca::{Codec, Header, Member, Message, PostcardCodec, State};
use mesh_types::NodeId;

use super::identity::{self, Identity, Life};
use crate::{addr::SmallAddr, nodes::NodeMap};

/// What is known of a member.
#[derive(Debug, Clone)]
pub(super) struct Known {
    /// Where it is, in which of its lives.
    addr: SmallAddr,
    addr_epoch: u64,
    addr_renewal: u32,
    /// What foca thought of it when it was last looked at: in which life, and which incarnation of that.
    epoch: u64,
    renewal: u32,
    incarnation: u16,
    /// None while foca does not know it.
    state: Option<State>,
}

impl Known {
    pub(super) fn age(&self) -> (u64, u32) {
        (self.epoch, self.renewal)
    }

    fn identity(&self, node: NodeId) -> Identity {
        Identity { node, addr: self.addr.get(), epoch: self.epoch, renewal: self.renewal }
    }

    /// As foca had it.
    pub(super) fn member(&self, node: NodeId) -> Option<Member<Identity>> {
        Some(Member::new(self.identity(node), self.incarnation, self.state?))
    }

    /// Whether `told` may be news (the order of SWIM, section 4.2; lives besides).
    fn may_change(&self, told: &Member<Life>) -> bool {
        let Some(state) = self.state else { return true };
        if self.age() != told.id().age() {
            return true;
        }
        match (state, told.state()) {
            (State::Down, _) => false,
            (_, State::Down) => true,
            (_, State::Alive) | (State::Suspect, State::Suspect) => told.incarnation() > self.incarnation,
            (State::Alive, State::Suspect) => told.incarnation() >= self.incarnation,
        }
    }
}

/// What passed through foca's codec, and what is known of members.
#[derive(Debug)]
pub(super) struct Seen {
    /// The last ping: to whom, its number, and whether it was answered.
    pub(super) probe: Option<(Life, u8, bool)>,
    /// This node's incarnation, as foca counts those of one identity.
    pub(super) incarnation: u16,
    /// What was told of members.
    pub(super) told: Vec<Member<Life>>,
    /// This node.
    node: NodeId,
    pub(super) addr: SocketAddr,
    /// Where a node is that is being announced to, of which nothing is known.
    pub(super) announced: Option<Identity>,
    pub(super) known: NodeMap<Known>,
}

impl Seen {
    fn answered(&mut self, by: &Life, number: u8) {
        if let Some((probed, n, answered)) = &mut self.probe {
            *answered |= probed == by && *n == number;
        }
    }

    /// Remembers where somebody is.
    pub(super) fn meet(&mut self, identity: &Identity) {
        let Identity { node, addr, epoch, renewal } = *identity;
        if node == self.node {
            return;
        }
        match self.known.get_mut(node) {
            Some(known) => {
                if (known.addr_epoch, known.addr_renewal) < (epoch, renewal) {
                    (known.addr_epoch, known.addr_renewal) = (epoch, renewal);
                    if known.addr.get() != addr {
                        known.addr = addr.into();
                    }
                }
            }
            None => {
                let known = Known {
                    addr: addr.into(),
                    addr_epoch: epoch,
                    addr_renewal: renewal,
                    epoch,
                    renewal,
                    incarnation: 0,
                    state: None,
                };
                self.known.insert(node, known);
            }
        }
    }

    /// Where that life is to be found; a past one where its node is now.
    pub(super) fn place(&self, life: Life) -> Option<Identity> {
        let node = life.node();
        if node == self.node {
            return Some(life.at(self.addr));
        }
        if let Some(announced) = self.announced.filter(|announced| announced.life() == life) {
            return Some(announced);
        }
        self.known.get(node).map(|known| life.at(known.addr.get()))
    }

    /// Who `node` is, as far as foca knows it.
    pub(super) fn find(&self, node: NodeId) -> Option<Identity> {
        self.known.get(node).filter(|known| known.state.is_some()).map(|known| known.identity(node))
    }

    /// The members that what was told may change.
    pub(super) fn take_news(&mut self) -> Vec<NodeId> {
        let told = std::mem::take(&mut self.told);
        let news = told
            .iter()
            .filter(|told| self.known.get(told.id().node()).is_none_or(|known| known.may_change(told)));
        news.map(|told| told.id().node()).collect()
    }

    /// Takes note of what foca thinks of `node` now. The state, if it or the life is another than before.
    pub(super) fn note(&mut self, node: NodeId, now: Option<&Member<Life>>) -> Option<(Identity, State)> {
        let Some(member) = now else {
            self.known.remove(node);
            return None;
        };
        let known = self.known.get_mut(node)?;
        let (age, state) = (member.id().age(), member.state());
        let is_other = known.age() != age || known.state != Some(state);
        (known.epoch, known.renewal) = age;
        (known.incarnation, known.state) = (member.incarnation(), Some(state));
        is_other.then(|| (known.identity(node), state))
    }
}

/// Postcard, with an eye on what passes.
#[derive(Debug, Clone)]
pub(super) struct Recorder(Arc<Mutex<Seen>>);

impl Recorder {
    pub(super) fn new(own: Identity) -> Self {
        Self(Arc::new(Mutex::new(Seen {
            probe: None,
            incarnation: 0,
            told: Vec::new(),
            node: own.node,
            addr: own.addr,
            announced: None,
            known: NodeMap::default(),
        })))
    }

    pub(super) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Of a life whose place is not known, which foca has from nobody.
const NOWHERE: postcard::Error = postcard::Error::SerdeSerCustom;

impl Codec<Life> for Recorder {
    type Error = postcard::Error;

    fn encode_header(&mut self, header: &Header<Life>, buf: impl BufMut) -> Result<(), Self::Error> {
        let mut seen = self.seen();
        seen.incarnation = header.src_incarnation;
        if let Message::Ping(number) = header.message {
            seen.probe = Some((header.dst, number, false));
        }
        let placed = identity::header(header.clone(), |life| seen.place(life).ok_or(NOWHERE))?;
        PostcardCodec.encode_header(&placed, buf)
    }

    fn decode_header(&mut self, buf: impl Buf) -> Result<Header<Life>, Self::Error> {
        let placed: Header<Identity> = PostcardCodec.decode_header(buf)?;
        let mut seen = self.seen();
        let header = identity::header(placed, |identity| {
            seen.meet(&identity);
            Ok::<_, Self::Error>(identity.life())
        })?;
        match header.message {
            Message::Ack(number) => seen.answered(&header.src, number),
            Message::ForwardedAck { origin, probe_number } => seen.answered(&origin, probe_number),
            _ => {}
        }
        seen.told.push(Member::new(header.src, header.src_incarnation, State::Alive));
        Ok(header)
    }

    fn encode_member(&mut self, member: &Member<Life>, buf: impl BufMut) -> Result<(), Self::Error> {
        let placed = self.seen().place(*member.id()).ok_or(NOWHERE)?;
        PostcardCodec.encode_member(&identity::member(member, placed), buf)
    }

    fn decode_member(&mut self, buf: impl Buf) -> Result<Member<Life>, Self::Error> {
        let placed: Member<Identity> = PostcardCodec.decode_member(buf)?;
        let mut seen = self.seen();
        seen.meet(placed.id());
        let member = identity::member(&placed, placed.id().life());
        seen.told.push(member.clone());
        Ok(member)
    }
}
