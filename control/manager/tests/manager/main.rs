//! A manager over real TLS on loopback.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic; its helpers as well")]

mod access;
mod certificates;
mod changes;
mod connectivity;
mod gossip_keys;
mod hostile;
mod intent;
mod joining;
mod noise;
mod restart;
mod sessions;
mod several;
mod support;
