//! The managers' replicated state: [`mesh_store::State`] agreed on by Raft and kept on disk.
//!
//! A [`RaftNode`] is one manager's part. [`RaftNode::propose`] has a command decided and carried out by all managers,
//! whichever of them leads; [`RaftNode::watch`] follows the state. Messages between managers are bytes: the node sends
//! them through a [`Transport`], and whoever serves the other side passes them to [`RaftNode::handle`].
//!
//! Everything durable (log, vote, snapshot) is in one file, `<dir>/raft.redb`. A node id is the Raft id of its manager.
//! This is the only crate that names `openraft` and `redb`.

#![forbid(unsafe_code)]

mod codec;
mod disk;
mod error;
mod grpc;
mod log;
mod machine;
mod network;
mod node;
pub mod simulation;
mod types;
mod vault;
mod writer;

pub use codec::DecodeError;
pub use error::{HandleError, MembershipError, OpenError, ProposeError};
pub use grpc::GrpcTransport;
pub use network::{RpcKind, Transport, TransportError, UnknownKind};
pub use node::{Manager, PROPOSE_TIMEOUT, Progress, RaftNode, RaftOptions, Standing};

pub use vault::Cipher;

#[cfg(test)]
mod testing;
