//! Podman on a node, with CNI for its networks.

use anyhow::Result;

use super::{Busybox, Folders};
use crate::{node::Node, process::output};

const CONTAINERS: &str = r#"[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
[network]
network_backend = "cni"
cni_plugin_dirs = ["/opt/cni/bin"]
network_config_dir = "/etc/cni/net.d"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
"#;

const STORAGE: &str = r#"[storage]
driver = "vfs"
runroot = "/run/containers/storage"
graphroot = "/var/lib/containers/storage"
"#;

/// Debian's Podman with folders of its own; its containers are removed on drop.
#[derive(Debug)]
pub struct Podman {
    folders: Folders,
}

impl Podman {
    /// Prepares it; [`Busybox::NAME`] is among its images.
    pub fn on(node: &Node, image: &Busybox) -> Result<Self> {
        let folders = Folders::of(node)?;
        folders.write("/etc/containers/containers.conf", CONTAINERS)?;
        folders.write("/etc/containers/storage.conf", STORAGE)?;
        folders.add_plugins(node)?;
        let podman = Self { folders };
        podman.podman(&["load", "--quiet", "--input", &image.archive()?.display().to_string()])?;
        Ok(podman)
    }

    /// Its folders, such as /etc/cni/net.d.
    pub fn folders(&self) -> &Folders {
        &self.folders
    }

    /// Runs `podman`; what it prints.
    pub fn podman(&self, words: &[&str]) -> Result<String> {
        let done = output(self.folders.command("podman")?.args(words));
        self.folders.record()?;
        done
    }

    /// `podman run --detach` of a container called `name` that runs `program`, with further words before the image.
    pub fn run(&self, name: &str, words: &[&str], program: &[&str]) -> Result<()> {
        let run = ["run", "--detach", "--pull", "never", "--name", name];
        self.podman(&[&run, words, &[Busybox::NAME], program].concat()).map(drop)
    }

    /// Runs a program in a container; what it prints.
    pub fn exec(&self, name: &str, program: &[&str]) -> Result<String> {
        self.podman(&[&["exec", name], program].concat())
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        // Their namespaces are seen outside of the folders.
        if let Err(error) = self.podman(&["rm", "--force", "--all", "--time", "0"]) {
            eprintln!("{error:#}");
        }
    }
}
