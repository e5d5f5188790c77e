//! A root file system of busybox, since no image can be pulled.

use std::{
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use serde_json::json;

use crate::process::{output, succeed};

const BUSYBOX: &str = "/bin/busybox";

/// A folder that a container can have as its root: static busybox with all its applets.
#[derive(Debug, Clone)]
pub struct Busybox {
    folder: PathBuf,
}

impl Busybox {
    /// The name that [`Busybox::archive`] has for engines.
    pub const NAME: &'static str = "docker.io/library/busybox:mesh";

    /// Makes it below `folder`, whose end is its end.
    pub fn make(folder: &Path) -> Result<Self> {
        let made = Self { folder: folder.join("busybox") };
        let root = made.root();
        for part in ["bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "var/www"] {
            let part = root.join(part);
            std::fs::create_dir_all(&part).with_context(|| format!("cannot make {}", part.display()))?;
        }
        std::fs::copy(BUSYBOX, root.join("bin/busybox")).context(BUSYBOX)?;
        for applet in output(Command::new(BUSYBOX).arg("--list"))?.lines().filter(|name| *name != "busybox") {
            symlink("busybox", root.join("bin").join(applet)).with_context(|| applet.to_owned())?;
        }
        for (file, text) in [
            ("passwd", "root:x:0:0:root:/root:/bin/sh\n"),
            ("group", "root:x:0:\n"),
            ("hosts", "127.0.0.1 localhost\n"),
            ("resolv.conf", ""),
        ] {
            std::fs::write(root.join("etc").join(file), text).with_context(|| file.to_owned())?;
        }
        Ok(made)
    }

    /// The folder.
    pub fn root(&self) -> PathBuf {
        self.folder.join("rootfs")
    }

    /// Its content, as `docker import` takes it.
    pub fn tar(&self) -> Result<PathBuf> {
        let tar = self.folder.join("layer.tar");
        if !tar.exists() {
            succeed(Command::new("tar").arg("-C").arg(self.root()).arg("-cf").arg(&tar).arg("."))?;
        }
        Ok(tar)
    }

    /// An image of one layer called [`Busybox::NAME`], as `docker load`, `podman load` and `ctr images import` take it.
    pub fn archive(&self) -> Result<PathBuf> {
        let archive = self.folder.join("image.tar");
        if archive.exists() {
            return Ok(archive);
        }
        let sum = output(Command::new("sha256sum").arg(self.tar()?))?;
        let sum = sum.split(' ').next().context("sha256sum prints nothing")?;
        let config = json!({
            "architecture": architecture(), "os": "linux",
            "config": {"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{sum}")]},
        });
        let manifest = json!([{"Config": "config.json", "RepoTags": [Self::NAME], "Layers": ["layer.tar"]}]);
        for (file, json) in [("config.json", config), ("manifest.json", manifest)] {
            std::fs::write(self.folder.join(file), json.to_string()).with_context(|| file.to_owned())?;
        }
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(&self.folder).arg("-cf").arg(&archive);
        succeed(tar.args(["manifest.json", "config.json", "layer.tar"]))?;
        Ok(archive)
    }
}

/// As images name it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
