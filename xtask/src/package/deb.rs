//! The Debian package, by `dpkg-deb` (docs/adr/0014-packages-by-xtask.md).

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::{Making, contents, contents::Programs, empty, needs};
use crate::command::{self, output, workspace};

/// What somebody may have changed, and keeps.
const CONFIGURATION: &str = "/etc/meshd/meshd.toml";

/// Who answers for a package if nobody is named: no address (RFC 2606).
const NOBODY: (&str, &str) = ("meshd authors", "meshd@meshd.invalid");

/// Where Debian has CNI plugins (containernetworking-plugins).
const CNI: &str = "usr/lib/cni";

/// Makes the package; its path.
pub fn make(making: &Making, programs: &Programs) -> Result<PathBuf> {
    let root = making.out.join("deb");
    empty(&root)?;
    let packaging = workspace().join("packaging");
    let places = [
        ("meshd", "usr/sbin/meshd"),
        ("meshctl", "usr/bin/meshctl"),
        ("mesh-cni", &format!("{CNI}/mesh-cni")),
    ];
    for (name, place) in places {
        programs.install(name, &root.join(place))?;
    }
    contents::install_share(programs, &root.join("usr/share"), true)?;
    let documents = root.join("usr/share/doc/meshd");
    let maintainer = maintainer();
    contents::copy(&workspace().join("CHANGELOG.md"), &documents.join("NEWS.md"), 0o644)?;
    contents::write(&documents.join("changelog"), changelog(making, &maintainer)?.as_bytes(), 0o644)?;
    for name in ["NEWS.md", "changelog"] {
        contents::compress(&documents.join(name))?;
    }
    let copied = [
        ("debian/copyright", "usr/share/doc/meshd/copyright"),
        ("debian/lintian-overrides", "usr/share/lintian/overrides/meshd"),
        ("meshd.service", "lib/systemd/system/meshd.service"),
        ("debian/sysusers.conf", "usr/lib/sysusers.d/meshd.conf"),
        ("debian/tmpfiles.conf", "usr/lib/tmpfiles.d/meshd.conf"),
        ("meshd.toml", CONFIGURATION.trim_start_matches('/')),
    ];
    for (source, place) in copied {
        contents::copy(&packaging.join(source), &root.join(place), 0o644)?;
    }
    let sums = contents::sums("md5sum", &root)?;
    let files = contents::files(&root)?;
    let binaries: Vec<_> = places.iter().map(|(_, place)| root.join(place)).collect();
    let glibc = needs::glibc(binaries.iter().map(PathBuf::as_path))?;

    let about = root.join("DEBIAN");
    let architecture =
        output(Command::new("dpkg").arg("--print-architecture")).context("dpkg is not there")?;
    let architecture = architecture.trim();
    let control = control(&making.version, architecture, &maintainer, glibc.as_deref(), size(&files)?);
    contents::write(&about.join("control"), control.as_bytes(), 0o644)?;
    contents::write(&about.join("conffiles"), format!("{CONFIGURATION}\n").as_bytes(), 0o644)?;
    // Of what the configuration's files are, dpkg keeps count itself.
    let sums: String = sums
        .lines()
        .filter(|line| !line.ends_with(" etc/meshd/meshd.toml"))
        .flat_map(|l| [l, "\n"])
        .collect();
    contents::write(&about.join("md5sums"), sums.as_bytes(), 0o644)?;
    for script in ["postinst", "prerm", "postrm"] {
        contents::copy(&packaging.join("debian").join(script), &about.join(script), 0o755)?;
    }
    let made = making.out.join(format!("meshd_{}_{architecture}.deb", making.version));
    let mut dpkg = Command::new("dpkg-deb");
    dpkg.env("SOURCE_DATE_EPOCH", &making.epoch).stdout(std::process::Stdio::null());
    dpkg.args(["--root-owner-group", if making.quick { "-Zgzip" } else { "-Zxz" }]);
    if making.quick {
        dpkg.arg("-z1");
    }
    command::run(dpkg.arg("--build").arg(&root).arg(&made))?;
    std::fs::remove_dir_all(&root).with_context(|| root.display().to_string())?;
    Ok(made)
}

/// KiB that the files take up.
fn size(files: &[PathBuf]) -> Result<u64> {
    let bytes = |path: &Path| path.metadata().map(|m| m.len()).with_context(|| path.display().to_string());
    files.iter().try_fold(0, |sum, path| Ok(sum + bytes(path)?.div_ceil(1024)))
}

/// As Debian's own tools are told who makes a package (debchange(1)).
fn maintainer() -> String {
    let told = |key: &str, otherwise: &str| std::env::var(key).unwrap_or_else(|_| otherwise.to_owned());
    format!("{} <{}>", told("DEBFULLNAME", NOBODY.0), told("DEBEMAIL", NOBODY.1))
}

/// In the form that apt's programs read (deb-changelog(5)); what has changed is in NEWS.md.
fn changelog(making: &Making, maintainer: &str) -> Result<String> {
    let mut date = Command::new("date");
    date.args(["--utc", "--rfc-email", "--date"]).arg(format!("@{}", making.epoch));
    let date = output(date.env("LC_ALL", "C")).context("date is not there")?;
    let (version, date) = (&making.version, date.trim());
    Ok(format!(
        "meshd ({version}) unstable; urgency=medium\n\n  * What has changed is told in NEWS.md.gz.\n\n -- {maintainer}  {date}\n"
    ))
}

fn control(version: &str, architecture: &str, maintainer: &str, glibc: Option<&str>, size: u64) -> String {
    let libraries = glibc.map(|glibc| format!("libc6 (>= {glibc}), libgcc-s1, ")).unwrap_or_default();
    format!(
        "Package: meshd\n\
         Version: {version}\n\
         Architecture: {architecture}\n\
         Maintainer: {maintainer}\n\
         Installed-Size: {size}\n\
         Depends: {libraries}nftables, passwd\n\
         Recommends: systemd\n\
         Suggests: bash-completion, containerd | podman | docker.io\n\
         Section: net\n\
         Priority: optional\n\
         Description: overlay networks and a routing mesh for containers\n\
         \u{20}meshd runs on every node. Together the nodes give containers, network\n\
         \u{20}namespaces and plain processes overlay networks, published ports that every\n\
         \u{20}node answers, and names, by eBPF programs that go on when the daemon stops.\n\
         \u{20}.\n\
         \u{20}The kernel has to be 6.1 or later.\n"
    )
}
