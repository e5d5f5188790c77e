//! Why a manager cannot be made or started.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use mesh_ca::{CaError, IdentityError};
use mesh_store::Rejection;
use mesh_types::{ClusterId, NodeId};
use thiserror::Error;

/// Why a manager cannot be made or started. After a failed [`crate::Manager::init`] the state folder is as it was.
#[derive(Debug, Error)]
pub enum ManagerError {
    /// The state folder holds a cluster.
    #[error("{} holds the state of a cluster already; leave it first with `meshctl leave`", .0.display())]
    Exists(PathBuf),
    /// A folder of the state cannot be made or removed.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// `make`, `remove`.
        action: &'static str,
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The address to listen on cannot be had.
    #[error("cannot listen on {addr} for other nodes")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The replicated state cannot be opened; the error names the file.
    #[error("cannot open the cluster's state")]
    Open(#[source] mesh_raft::OpenError),
    /// The first manager cannot become the only voter.
    #[error("cannot make the cluster")]
    Initialize(#[source] mesh_raft::MembershipError),
    /// The first change was not decided.
    #[error("cannot make the cluster")]
    Propose(#[source] mesh_raft::ProposeError),
    /// The first change was refused.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The CA cannot be made.
    #[error("cannot make the cluster's CA")]
    Ca(#[from] CaError),
    /// The node's own certificate cannot be made, kept or used.
    #[error("cannot use this node's certificate")]
    Identity(#[from] IdentityError),
    /// The folder holds no cluster, though this node has a manager's certificate.
    #[error(
        "{} holds no cluster state, though this node's certificate says it is a manager of one; \
         restore the folder, or move the whole state folder away to begin anew",
        .0.display()
    )]
    Empty(PathBuf),
    /// State and certificate are of two clusters.
    #[error("{} is the state of cluster {state}, but this node's certificate is of cluster {certificate}", .path.display())]
    OtherCluster {
        /// The folder.
        path: PathBuf,
        /// The cluster of the state.
        state: ClusterId,
        /// The cluster of the certificate.
        certificate: ClusterId,
    },
    /// A state cannot be restored. Nothing was changed.
    #[error("the cluster cannot be restored: {0}")]
    Restore(String),
    /// The manager that leads cannot be asked.
    #[error("the other managers cannot be asked")]
    Members(#[source] mesh_raft::ProposeError),
    /// The cluster has removed this node.
    #[error("node {0} was removed from the cluster; move the state folder away to begin anew")]
    Removed(NodeId),
}

pub(crate) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ManagerError {
    let path = path.to_owned();
    move |source| ManagerError::Io { action, path, source }
}
