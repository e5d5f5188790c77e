//! What can go wrong, for callers.

use std::{io, path::PathBuf};

use mesh_store::Rejection;
use mesh_types::NodeId;
use thiserror::Error;

use crate::{codec::DecodeError, network::TransportError};

/// Why the state on disk cannot be used. Nothing was changed, and no fresh state was begun in its place.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The file cannot be made, read or written.
    #[error("cannot open {}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process has it open.
    #[error("{} is in use: is another meshd running on this state folder?", .path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file is corrupt or cut short.
    #[error("{} is damaged: {reason}; restore it, or move it away and let this manager join again", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Another version of meshd wrote it.
    #[error("{} was written by another version of meshd: {what}", .path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Which formats there are.
        what: String,
    },
    /// It belongs to another node.
    #[error("{} belongs to node {found}, this is node {expected}", .path.display())]
    WrongNode {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found: NodeId,
        /// Who this is.
        expected: NodeId,
    },
    /// Raft did not start.
    #[error("raft did not start: {0}")]
    Start(String),
}

/// Why a command has no answer.
#[derive(Debug, Error)]
pub enum ProposeError {
    /// It was decided and refused. Nothing was changed.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// Nobody leads, so that nobody can decide. Nothing was changed.
    #[error("no manager leads the cluster: a majority of the managers must be up and reach each other")]
    NoLeader,
    /// Too few managers answered. The command may still be carried out later.
    #[error("too few managers answered in time; the change may still happen once a majority is back")]
    NoMajority,
    /// The leader could not be asked, or its answer got lost. The command may have been carried out.
    #[error("the leading manager {leader} does not answer")]
    Leader {
        /// The leader.
        leader: NodeId,
        /// Why.
        source: TransportError,
    },
    /// The leader changed meanwhile. The command may have been carried out.
    #[error(
        "the leading manager changed meanwhile; look whether the change has happened before trying again"
    )]
    LeaderChanged,
    /// Not all managers are known to be new enough for it. Nothing was changed.
    #[error(
        "a manager of this cluster runs an older meshd, or cannot be asked for its version; bring all managers to this version \
         and try again a moment later"
    )]
    NotAgreed,
    /// This manager's Raft has stopped, by [`crate::RaftNode::shutdown`] or by a failure of its disk.
    #[error("this manager has stopped: {reason}")]
    Stopped {
        /// Why.
        reason: String,
    },
}

/// Why the set of managers was not changed.
#[derive(Debug, Error)]
pub enum MembershipError {
    /// This manager does not lead; ask the leader.
    #[error("only the leading manager can do this{}", .leader.map(|l| format!(": ask node {l}")).unwrap_or_default())]
    NotLeader {
        /// The leader, where known.
        leader: Option<NodeId>,
    },
    /// Too few managers answered in time. The change may still happen.
    #[error("too few managers answered in time; the change may still happen once a majority is back")]
    NoMajority,
    /// Raft refused it. Nothing was changed.
    #[error("the managers cannot be changed: {reason}")]
    Refused {
        /// Why.
        reason: String,
    },
    /// This manager's Raft has stopped.
    #[error("this manager has stopped: {reason}")]
    Stopped {
        /// Why.
        reason: String,
    },
}

/// Why a message from another manager was not answered.
#[derive(Debug, Error)]
pub enum HandleError {
    /// It is not a message of this version.
    #[error("the message cannot be read: {0}")]
    Message(#[from] DecodeError),
    /// A command that the managers have not agreed to read.
    #[error(transparent)]
    NotAgreed(Box<ProposeError>),
    /// The answer cannot be written.
    #[error("the answer cannot be written")]
    Answer(#[from] io::Error),
    /// A learner that is asked to stand for election does not have the log so far.
    #[error("this manager does not have the log so far")]
    Behind,
    /// This manager's Raft has stopped.
    #[error("this manager has stopped: {reason}")]
    Stopped {
        /// Why.
        reason: String,
    },
}
