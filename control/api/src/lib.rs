//! The protobuf services between `meshctl`, agents and managers, and their conversions to and from `mesh-types`.
//!
//! What arrives is checked in the conversion: a message that converts holds only valid values.

mod convert;
pub mod transport;

/// Messages, clients and servers generated from `proto/mesh/v1`.
#[expect(
    missing_docs,
    clippy::all,
    clippy::allow_attributes,
    reason = "generated; the proto files hold the docs"
)]
pub mod v1 {
    tonic::include_proto!("mesh.v1");
}

/// Every method of every service, as `/mesh.v1.SERVICE/METHOD`.
pub const METHODS: &[&str] = include!(concat!(env!("OUT_DIR"), "/methods.rs"));

pub use convert::{Invalid, node_listeners, parse_id, weight};
