//! Clusters on one machine: nodes are network namespaces, joined by a bridge in a namespace of its own.
//!
//! [`TestNet`] is the wire: namespaces, links, an outside client. [`Cluster`] runs a meshd on each node and drives it
//! with meshctl, as a user would. Everything is removed on drop, and what a killed process could not remove is
//! removed by the next one. Nothing here looks inside meshd: what these tests know, an operator can see.
//!
//! All of it needs root, and fails without.

mod binaries;
mod booted;
mod cgroup;
mod clock;
mod cluster;
mod containers;
mod datagrams;
mod debian;
mod dns;
pub mod docs;
mod echo;
mod firewalls;
mod guest;
mod http;
pub mod interrupt;
mod inventory;
mod iperf;
mod leftovers;
mod load;
mod maps;
mod netns;
mod node;
mod process;
mod raw;
mod sctp;
mod service_manager;
mod slow_disk;
mod stream;
mod task;
mod tcpdump;
mod testnet;
mod threads;
pub mod verifier;
mod wait;

pub use binaries::Binaries;
pub use booted::Booted;
pub use clock::Clock;
pub use cluster::{Cluster, run, run_many, run_on};
pub use containers::{Busybox, CniError, CniPlugin, Containerd, Docker, Folders, Podman, REFERENCE_PLUGINS};
pub use datagrams::Datagrams;
pub use debian::{Packages, clean_root};
pub use dns::{StubDns, resolve};
pub use echo::UdpEcho;
pub use firewalls::Firewall;
pub use guest::{Greeter, Guest, Talk};
pub use http::{Tally, connect_from, curl, get, get_on};
pub use inventory::Inventory;
pub use iperf::iperf3;
pub use leftovers::{Prefix, remove_all};
pub use load::{Failure, Load, Outcome, Wrk};
pub use netns::NetNs;
pub use node::{Node, Refusal};
pub use process::{Lifetime, Process, lines_of, output, succeed};
pub use raw::RawLink;
pub use sctp::{sctp_connect, sctp_listen};
pub use service_manager::ServiceManager;
pub use slow_disk::SlowDisk;
pub use stream::Stream;
pub use task::{Nginx, Task, TaskSpec};
pub use tcpdump::Tcpdump;
pub use testnet::{GATEWAY, GATEWAY6, OUTSIDE, OUTSIDE6, TestNet, Wire};
pub use wait::{PATIENCE, wait};
