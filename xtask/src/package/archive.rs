//! The archive for other distributions: static programs and `install.sh`.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result};

use super::{Making, contents, contents::Programs, empty};
use crate::command::{self, workspace};

/// Makes the archive, and beside it a file with its checksum; the archive's path.
pub fn make(making: &Making, programs: &Programs) -> Result<PathBuf> {
    let name = format!("meshd-{}-{}-linux", making.version, std::env::consts::ARCH);
    let root = making.out.join(&name);
    empty(&root)?;
    for (program, place) in [("meshd", "sbin"), ("meshctl", "bin"), ("mesh-cni", "cni")] {
        programs.install(program, &root.join(place).join(program))?;
    }
    contents::install_share(programs, &root.join("share"), false)?;
    let packaging = workspace().join("packaging");
    for (file, bits) in [("meshd.service", 0o644), ("meshd.toml", 0o644), ("install.sh", 0o755)] {
        contents::copy(&packaging.join(file), &root.join(file), bits)?;
    }
    for licence in ["LICENSE-MIT", "LICENSE-APACHE"] {
        contents::copy(&workspace().join(licence), &root.join(licence), 0o644)?;
    }
    contents::write(&root.join("ARCHITECTURE"), format!("{}\n", std::env::consts::ARCH).as_bytes(), 0o644)?;
    let sums = contents::sums("sha256sum", &root)?;
    contents::write(&root.join("SHA256SUMS"), sums.as_bytes(), 0o644)?;

    let file = format!("{name}.tar.gz");
    let made = making.out.join(&file);
    let mut tar = Command::new("tar");
    tar.current_dir(&making.out).args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner"]);
    tar.arg(format!("--mtime=@{}", making.epoch));
    let level = if making.quick { "-1" } else { "-9" };
    command::run(
        tar.arg(format!("--use-compress-program=gzip --no-name {level}")).arg("-cf").arg(&file).arg(&name),
    )?;
    let sum = command::output(Command::new("sha256sum").current_dir(&making.out).arg(&file))
        .context("sha256sum")?;
    contents::write(&making.out.join(format!("{file}.sha256")), sum.as_bytes(), 0o644)?;
    std::fs::remove_dir_all(&root).with_context(|| root.display().to_string())?;
    Ok(made)
}
