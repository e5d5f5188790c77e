//! The agent: makes a node agree with what the managers decided and with what runs.
//!
//! The [`planner`] and [`names`] are pure: from the decided state, this node's tasks and gossip's tables follow the
//! contents of the data path, the announcements and the names that tasks resolve. [`Agent`] drives them: it follows a
//! manager, keeps its state on disk, attaches and detaches tasks, and applies each plan. Foreign links, routes and
//! programs are never touched.

#![forbid(unsafe_code)]

mod addresses;
mod agent;
mod attach;
mod comeback;
mod connect;
mod detach;
mod drain;
mod ending;
mod error;
mod fault;
mod flows;
mod follow;
mod health;
mod heard;
mod holds;
mod host;
mod host_ports;
mod interfaces;
mod ipv6;
pub mod kept;
mod kept_sockets;
mod leases;
mod listeners;
pub mod names;
mod owned;
mod ping;
pub mod planner;
mod reach;
mod reconcile;
mod renewing;
mod resolver;
mod session;
mod slow;
mod snapshot;
mod state;
mod status;
mod task;
mod tend;
mod testing;
mod trace;
mod traffic;
mod uplinks;
mod watch;
mod watched;
mod way_out;

pub use agent::{Agent, AgentOptions, remove_from_node};
pub use attach::AttachSpec;
pub use connect::{ConnectError, ConnectSpec};
pub use drain::TaskError;
pub use error::{AgentError, AttachError, DetachError};
pub use fault::point as step_reached;
pub use flows::{FilterError, FlowFilter, FlowQuery, FlowsError, NamedFlow, Walked};
pub use health::LastCheck;
pub use holds::{Held, Hold, HoldSpec, Release};
pub use host::{HostOptions, PathChoice, is_ours as is_own_link};
pub use interfaces::TaskInterface;
pub use kept_sockets::KeptSockets;
pub use leases::Leases;
pub use mesh_dns::{DnsHistogram, DnsStats, LATENCY_BOUNDS};
pub use mesh_gossip::{MemberState, Stats as GossipCounters, Way};
pub use mesh_lb::{
    Counts as DataPathCounts, FlowState, FlowTimeouts, Frontend, Limits, MapUse, Options as DataPathOptions,
    ProgramStats, PublishedOn, Sizes, Stats as DataPathStats, Traffic, UplinkHook, What,
    enable_stats as count_program_runs,
};
pub use owned::Detached;
pub use ping::{PingError, PingSpec, Pinged};
pub use reach::ReachedNode;
pub use resolver::{ExplainError, Explained};
pub use session::{SessionError, SessionState, one_line};
pub use snapshot::{
    EndpointCounts, FrontendCounts, NetworkCounts, ServiceCounts, Snapshot, endpoints as endpoint_counts,
};
pub use status::{GossipStatus, Status, UplinkStatus};
pub use task::{Attachment, Drain, LocalTask, NsIdentity, NsRef};
pub use trace::{
    Trace, TraceEnd, TraceError, TraceFate, TraceFrom, TraceProtocol, TraceSpec, TraceStep, WayBack,
};
pub use traffic::{Place, since};
pub use uplinks::{DataPathAddress, DataPathChoice};
pub use watch::{CaptureSpec, NamedEvent, Told, Watch, WatchError, WatchSpec};
