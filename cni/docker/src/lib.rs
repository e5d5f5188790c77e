//! Docker's network and address plugin: `docker network create -d mesh -o network=prod prod`.
//!
//! A Docker engine asks over a unix socket, in the words of libnetwork's remote drivers (`protocol`); the plugin asks the
//! daemon of its node over that one's own socket ([`Mesh`]), and the engine's API for labels and aliases (`engine`).
//! Docker gives neither interface nor address to a container: the daemon does, as it does for every task.
//!
//! An engine that says where the sandbox will be before there is one (Docker before 26) has the container attached in the
//! moment in which the runtime has made its namespace. All that can be refused is refused before, when Docker still
//! listens; what fails later stops the container.

#![forbid(unsafe_code)]

mod book;
mod driver;
mod engine;
mod http;
mod ipam;
mod ipv6;
mod labels;
mod mesh;
mod places;
mod plugin;
mod protocol;
mod repeats;
mod sandbox;
mod server;
mod tending;
mod wishes;

#[cfg(test)]
mod tests;

pub use engine::{Engine, EngineError};
pub use mesh::{Mesh, MeshSocket, Refusal, Reserve};
pub use plugin::{Options, Plugin, PluginError};
pub use server::serve;
