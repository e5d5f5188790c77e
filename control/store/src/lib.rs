//! The cluster's decided state: a pure, deterministic state machine.
//!
//! [`State::apply`] takes a [`Command`] and either answers a [`Response`] or refuses with a [`Rejection`] and changes
//! nothing. No clock, no randomness, no I/O: the same commands give the same bytes ([`State::encode`]) on every
//! manager.

mod apply;
mod authority;
mod codec;
mod command;
mod gossip;
mod rejection;
mod restore;
mod state;

pub use apply::{DEFAULT_LEASE_GRACE, IPV6_MTU, MAX_LEASE, MAX_MANAGERS, MIN_LEASE_GRACE, MTU_RANGE};
pub use authority::{
    Authority, DEFAULT_CERT_VALIDITY, MAX_CERT_VALIDITY, MIN_CERT_VALIDITY, NewRoot, PreviousRoot,
};
pub use codec::{DecodeError, NEWEST_FORMAT, OLDEST_FORMAT};
pub use command::{
    AliasChange, Command, LeaseChange, NetworkChange, NewNetwork, NewService, NodeChange, Removable,
    Response, Secrets, Sensitive, ServiceChange,
};
pub use gossip::{
    DEFAULT_GOSSIP_ROTATION, GossipKeys, GossipPhase, MAX_GOSSIP_ROTATION, MIN_GOSSIP_ROTATION,
};
pub use rejection::{Holder, Kind, Leased, Rejection};
pub use state::{Renewal, State};
