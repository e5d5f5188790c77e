//! The data path in a real kernel, as root: each test in namespaces of its own, which end with its thread, whatever
//! happens, and take interfaces, mounts, pins and links along.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod choices;
mod events;
mod flow_list;
mod flows;
mod hooks;
mod maps;
mod programs;
mod sandbox;
mod takeover;
mod traffic;
