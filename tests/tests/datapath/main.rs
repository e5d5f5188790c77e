//! Packets in, packets out: each program of the data path run on packets built here (`BPF_PROG_TEST_RUN`), from program
//! to program and from node to node, with every checksum looked at on the way.
//!
//! What test runs cannot show is where a redirected packet goes; the cluster tests do. Needs root, like those.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod asked;
mod conntrack;
mod drops;
mod dual;
mod errors;
mod events;
mod fragments;
mod frames;
mod malformed;
mod next_hops;
mod overlay;
mod packets;
mod places;
mod properties;
mod published;
mod refused;
mod reset;
mod segments;
mod too_big;
mod traffic;
mod vip;
mod world;
mod xdp;
mod xdp_direct;
