//! What tests with real container engines need: folders of a machine's own, and an image made on the spot.

mod containerd;
mod folders;
mod image;

pub use containerd::Containerd;
pub use folders::Folders;
pub use image::Busybox;
