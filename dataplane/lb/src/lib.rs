//! The data path seen from user space: Maglev tables, the eBPF programs' loader and their maps.
//!
//! An agent says what should be ([`Desired`]); [`DataPath`] finds the difference to what the kernel's maps hold and
//! writes it in an order in which no packet meets half an update. The only crate that names aya.

mod desired;
mod encode;
mod error;
mod held;
pub mod maglev;
mod object;
mod plan;
mod regions;

pub use desired::{
    Backend, BackendKey, Desired, EndpointEntry, Frontend, LocalEntry, NetworkEntry, NodeSettings,
    ServiceEntry,
};
pub use error::Error;
pub use object::OBJECT;
