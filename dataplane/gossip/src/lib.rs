//! What runs where, and which nodes are alive, told from node to node without any manager.
//!
//! - Membership is SWIM (Das, Gupta, Motivala 2002) by `foca`, which only `swim` names.
//! - Endpoint tables are ours: one table per network, kept only by the nodes interested in it. An entry has one
//!   owner, the node that announced it, and a [`Version`] that only the owner raises.
//! - A member that SWIM finds gone is asked by way of its data path, which answers without a daemon ([`Liveness`]).
//! - A change goes out at once as sealed datagrams; those that get lost are sent again until acknowledged, and
//!   what still differs is found and repaired by a periodic comparison of digests over TCP.
//!
//! [`Core`] decides all of it and is pure: it takes an [`Input`] and the time, and returns [`Output`]s. [`Gossip`]
//! runs a core over UDP and TCP sockets and seals what it sends.

#![forbid(unsafe_code)]

mod addr;
mod config;
mod core;
mod driver;
mod errand;
mod meter;
mod networks;
mod nodes;
mod outbox;
mod questions;
mod reach;
mod records;
mod replay;
mod report;
mod seal;
mod stream;
mod swim;
mod sync;
mod tables;
mod wire;

#[cfg(test)]
mod driver_tests;
#[cfg(test)]
mod simulation;

pub use crate::core::{Acquaintance, Core, CoreConfig, CoreStats, Input, Output};
pub use config::{GossipConfig, GossipError, KeyRing, KeyRingError, Timing};
pub use driver::Gossip;
pub use errand::{Answerer, ErrandError};
pub use mesh_types::SharedMap;
pub use networks::NetworkSet;
pub use questions::ask_data_path;
pub use reach::{ReachSpec, Reached, Way};
pub use report::{EntryReport, MemberReport, Rates, Report, TableReport};
pub use seal::{SealError, Sealer};
pub use tables::{
    Announcement, EndpointKey, EndpointTable, Interest, Liveness, MemberState, MemberStatus, Stats, Tables,
};
pub use wire::{Item, Key, MAX_DATAGRAM, MAX_STREAM, Message, Packet, Table, Version, WireError};
