//! What makes a node a manager: the servers on TCP 2377 over the replicated state.
//!
//! [`Manager::init`] makes a cluster, [`Manager::open`] goes on with one. Four services answer on one listener: Join
//! for nodes without a certificate, Dispatcher for every member, Control and Raft for managers. Who may call what
//! stands in one table (`access`), and every call passes it. The daemon's own unix socket serves
//! [`Manager::control`] too: whoever may open that socket is the local administrator.
//!
//! What runs is not the managers' to know; where a decision needs it, they ask [`EndpointView`].

#![forbid(unsafe_code)]

mod access;
mod arriving;
mod backup;
mod cluster;
mod connectivity;
mod control;
mod dispatcher;
mod error;
mod events;
mod gossip_keys;
mod identity;
mod init;
mod join;
mod keys;
mod liveness;
mod manager;
mod membership;
mod orders;
mod peers;
mod rate;
mod reports;
mod shared;
mod silence;
pub mod simulation;
mod status;
mod touch;
mod traces;
mod versions;
mod watching;

pub use backup::{Backup, BackupError};
pub use cluster::Cluster;
pub use control::Control;
pub use error::ManagerError;
pub use init::{NewCluster, RestoredCluster};
pub use liveness::{Heard, NodeStatus};
pub use manager::{Manager, ManagerOptions};
pub use mesh_store::State;
pub use reports::Listeners;
pub use shared::{Checked, EndpointView};
pub use versions::formats;
pub use watching::Traffic;

pub use mesh_raft::{Progress, Standing};

#[cfg(test)]
mod testing;
