//! Nodes whose daemon is silent: does their data path still work? It is asked, and answers without a daemon.
//!
//! A suspect is asked at once, so that most is known when its time is over. What makes a node dead is questions without an
//! answer, not time: to this process, when it stood still itself, an answer is always first (see [`Core::handle`]).

use std::{net::SocketAddr, time::Duration};

use mesh_types::NodeId;
use rand::Rng;

use super::Core;
use crate::{MemberState, Output, swim::Identity};

/// Why a node is asked, which says how often and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// Its daemon did not answer lately.
    Suspect,
    /// It has just been found gone: whether the node counts hangs upon the answer.
    Gone,
    /// Its daemon is gone, its data path works.
    Watched,
    /// Nothing was heard of it since this daemon started, or since a partition.
    Unseen,
}

impl Why {
    /// Until the next question.
    fn pause(self) -> Duration {
        Duration::from_millis(match self {
            Why::Gone => 70,
            Why::Suspect | Why::Watched => 250,
            Why::Unseen => 500,
        })
    }

    /// After so many questions in a row without an answer there is none.
    fn limit(self) -> u8 {
        match self {
            Why::Suspect => u8::MAX,
            Why::Gone => 3,
            Why::Watched => 4,
            Why::Unseen => 8,
        }
    }
}

/// Between a watched node's answer and the next question.
const WATCH: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Asking {
    why: Why,
    /// The next question, or the end.
    at: Duration,
    /// Of the last questions.
    nonces: [u64; 4],
    unanswered: u8,
    answered: bool,
}

impl Asking {
    fn new(why: Why, at: Duration) -> Self {
        Self { why, at, nonces: [0; 4], unanswered: 0, answered: false }
    }
}

/// What is to be thought of a node that SWIM finds gone.
pub(super) enum Finding {
    /// What was thought so far; it is being asked.
    AsBefore,
    /// Its data path works.
    Unattended,
    /// It is gone.
    Gone,
}

impl Core {
    pub(super) fn set_data_paths(&mut self, listed: impl IntoIterator<Item = (NodeId, SocketAddr)>) {
        let before = std::mem::take(&mut self.data_paths);
        self.data_paths = listed.into_iter().filter(|(node, _)| self.peers.contains(*node)).collect();
        self.asking.retain(|node, _| self.data_paths.contains_key(node));
        let new = self.data_paths.keys().filter(|node| !before.contains_key(node));
        let unseen: Vec<_> = new.filter(|node| !self.members.contains_key(node)).copied().collect();
        for node in unseen {
            let at = self.now + Why::Unseen.pause();
            self.asking.entry(node).or_insert(Asking::new(Why::Unseen, at));
        }
    }

    pub(super) fn asking_deadline(&self) -> Option<Duration> {
        self.asking.values().map(|asking| asking.at).min()
    }

    /// A member is suspected.
    pub(super) fn ask_suspect(&mut self, node: NodeId) {
        if self.data_paths.contains_key(&node) {
            self.asking.insert(node, Asking::new(Why::Suspect, self.now));
            self.ask_due();
        }
    }

    /// A member is back that had not gone: it was this node that could not reach it, and may be so with others whose daemon
    /// alone went in the meantime.
    pub(super) fn ask_all_down(&mut self) {
        let down = self.members.iter().filter(|(_, member)| member.state == MemberState::Down);
        for node in down.map(|(node, _)| *node).filter(|node| self.data_paths.contains_key(node)) {
            self.asking.entry(node).or_insert(Asking::new(Why::Unseen, self.now));
        }
    }

    /// A member that counts is found gone.
    pub(super) fn ask_gone(&mut self, node: NodeId) -> Finding {
        if !self.data_paths.contains_key(&node) {
            return Finding::Gone;
        }
        let asking = self.asking.entry(node).or_insert(Asking::new(Why::Gone, self.now));
        let finding = match asking.why {
            Why::Watched => Finding::Unattended,
            Why::Suspect | Why::Unseen if asking.answered && asking.unanswered < Why::Watched.limit() => {
                asking.why = Why::Watched;
                Finding::Unattended
            }
            Why::Suspect | Why::Unseen if asking.unanswered >= Why::Gone.limit() => Finding::Gone,
            Why::Suspect | Why::Unseen | Why::Gone => {
                asking.why = Why::Gone;
                asking.at = asking.at.min(self.now + Why::Gone.pause());
                Finding::AsBefore
            }
        };
        if matches!(finding, Finding::Gone) {
            self.asking.remove(&node);
        }
        self.ask_due();
        finding
    }

    /// Asks those whose turn it is, and gives up those that have not answered.
    pub(super) fn ask_due(&mut self) {
        let due: Vec<NodeId> =
            self.asking.iter().filter(|(_, asking)| asking.at <= self.now).map(|(node, _)| *node).collect();
        for node in due {
            let Some(asking) = self.asking.get_mut(&node) else { continue };
            let Some(to) = self.data_paths.get(&node).copied() else { continue };
            if asking.unanswered >= asking.why.limit() {
                self.asking.remove(&node);
                self.found_gone(node);
                continue;
            }
            let nonce = self.rng.random();
            asking.nonces.rotate_right(1);
            asking.nonces[0] = nonce;
            asking.unanswered = asking.unanswered.saturating_add(1);
            asking.at = self.now + asking.why.pause();
            self.out.push(Output::Question { to, nonce });
        }
    }

    fn found_gone(&mut self, node: NodeId) {
        let Some(member) = self.members.get(&node).filter(|member| member.counts()) else { return };
        let identity = self.swim.find(node);
        self.set_member(identity.unwrap_or(member.identity(node)), MemberState::Down);
    }

    pub(super) fn answered(&mut self, from: SocketAddr, nonce: u64) {
        let now = self.now;
        let told = self.asking.iter_mut().find(|(node, asking)| {
            self.data_paths.get(*node) == Some(&from) && nonce != 0 && asking.nonces.contains(&nonce)
        });
        let Some((&node, asking)) = told else { return };
        (asking.unanswered, asking.answered) = (0, true);
        if asking.why == Why::Suspect {
            return;
        }
        asking.at = now + WATCH;
        if std::mem::replace(&mut asking.why, Why::Watched) == Why::Watched {
            return;
        }
        let known =
            self.swim.find(node).or_else(|| self.members.get(&node).map(|member| member.identity(node)));
        let identity = known.or_else(|| {
            // It has not been heard of: whoever comes is newer than this.
            let addr = self.peers.get(node)?.get();
            Some(Identity { node, addr, epoch: self.records.epoch(node), renewal: 0 })
        });
        if let Some(identity) = identity {
            self.set_member(identity, MemberState::Unattended);
        }
    }
}
