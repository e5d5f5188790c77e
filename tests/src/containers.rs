//! What tests with real container engines need: folders of a machine's own, and an image made on the spot.

mod cni;
mod containerd;
mod docker;
mod folders;
mod image;
mod podman;

pub use cni::{CniError, CniPlugin, REFERENCE_PLUGINS};
pub use containerd::Containerd;
pub use docker::Docker;
pub use folders::Folders;
pub use image::Busybox;
pub use podman::Podman;
