//! The cluster's decided state: a pure, deterministic state machine.
//!
//! [`State::apply`] takes a [`Command`] and either answers a [`Response`] or refuses with a [`Rejection`] and changes
//! nothing. No clock, no randomness, no I/O: the same commands give the same bytes ([`State::encode`]) on every
//! manager.

mod apply;
mod codec;
mod command;
mod rejection;
mod state;

pub use apply::{IPV6_MTU, MAX_LEASE, MTU_RANGE};
pub use codec::DecodeError;
pub use command::{Command, NewNetwork, NewService, NodeChange, Response, Secrets, Sensitive, ServiceChange};
pub use rejection::{Holder, Kind, Rejection};
pub use state::State;
