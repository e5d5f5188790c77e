//! What the host's own firewall does with packets that the mesh needs: its rules are read, and followed, never changed.
//!
//! [`Ruleset::read`] takes the rules of nftables and of both kinds of iptables, in the form of `nft --json`.
//! [`Ruleset::bases`] are the chains that the kernel has packets pass, and [`Ruleset::fate`] says what becomes of a
//! [`Packet`] there. Only what is sure counts: a condition that is not understood may hold, and may not.
//! [`forwarding_closed`] asks it of what tasks send out.

#![forbid(unsafe_code)]

mod base;
mod fate;
mod forwarding;
mod iptables;
mod keeper;
mod ruleset;
mod run;

pub use base::Base;
pub use fate::{Fate, Packet};
pub use forwarding::{Closed, forwarding_closed};
pub use keeper::Keeper;
pub use ruleset::Ruleset;
