//! Tests of the state machine as others see it.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic; its helpers as well")]

mod authority;
mod behaviour;
mod common;
mod families;
mod formats;
mod gossip;
mod intent;
mod leases;
mod managers;
mod ports;
mod properties;
