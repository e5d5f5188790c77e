//! A clean Debian, and the packages to put in it.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use nix::fcntl::{Flock, FlockArg};

use crate::{
    Binaries,
    leftovers::{names, remove_folder},
    output, succeed,
};

/// What the package's own dependencies are, and what looks at it: manual pages, completions, the unit.
const INCLUDED: &str = "nftables,man-db,bash-completion,bsdextrautils,systemd";

/// Debian 12 in a folder below target, which nobody is to change; made by debootstrap when it is not there.
pub fn clean_root() -> Result<PathBuf> {
    made_once("bookworm", |making| {
        let mut debootstrap = Command::new("debootstrap");
        debootstrap
            .args(["--variant=minbase", &format!("--include={INCLUDED}"), "bookworm"])
            .arg(making)
            .arg(mirror()?);
        if let Some(proxy) = proxy() {
            debootstrap.env("http_proxy", proxy);
        }
        succeed(&mut debootstrap)
    })
}

/// What is in Debian's packages, in a folder of that name beside the clean root: fetched by apt, unpacked and not installed,
/// and prepared once by `prepare`.
pub(crate) fn unpacked(
    name: &str,
    packages: &[&str],
    prepare: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    made_once(name, |making| {
        let archives = making.join("archives");
        std::fs::create_dir_all(&archives).with_context(|| archives.display().to_string())?;
        let download = || {
            let mut apt = Command::new("apt-get");
            succeed(apt.args(["--quiet", "download"]).args(packages).current_dir(&archives))
        };
        if download().is_err() {
            // What apt knows may be of a time whose packages are gone.
            succeed(Command::new("apt-get").args(["--quiet", "update"]))?;
            download()?;
        }
        for archive in names(&archives) {
            succeed(Command::new("dpkg-deb").arg("--extract").arg(archives.join(archive)).arg(making))?;
        }
        remove_folder(&archives)?;
        prepare(making)
    })
}

/// A folder below target that `make` fills when it is not there. Tests run beside each other: one makes it, the others wait.
fn made_once(name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let folder = target()?.join("debian");
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let lock = File::create(folder.join("lock")).context("a lock beside what is made")?;
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, error)| error)?;
    let made = folder.join(name);
    if made.exists() {
        return Ok(made);
    }
    let making = folder.join("making");
    remove_folder(&making)?;
    make(&making)?;
    std::fs::rename(&making, &made).with_context(|| made.display().to_string())?;
    Ok(made)
}

/// The mirror that this machine's apt is told of.
fn mirror() -> Result<String> {
    let format = "$(REPO_URI) $(COMPONENT) $(CREATED_BY)";
    let targets = output(Command::new("apt-get").args(["indextargets", "--format", format]))?;
    let mut fields = targets.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let debian = |line: &Vec<&str>| matches!(line[..], [uri, "main", "Packages"] if uri.trim_end_matches('/').ends_with("/debian"));
    let found = fields.find(debian).context("apt knows no mirror of Debian")?;
    Ok(found[0].to_owned())
}

/// The proxy that this machine's apt is told of, if any.
fn proxy() -> Option<String> {
    let said = output(Command::new("apt-config").args(["shell", "PROXY", "Acquire::http::Proxy"])).ok()?;
    let proxy = said.trim().strip_prefix("PROXY='")?.strip_suffix('\'')?.to_owned();
    (!proxy.is_empty() && proxy != "DIRECT").then_some(proxy)
}

/// Packages made of the binaries under test. Removed on drop.
pub struct Packages {
    folder: PathBuf,
    debs: Vec<PathBuf>,
    archive: PathBuf,
}

impl Packages {
    /// A Debian package of each version, and the archive with the installer: here of binaries that are linked with this
    /// machine's library, which is the clean root's too.
    pub fn make<const N: usize>(versions: [&str; N]) -> Result<Self> {
        let folder = target()?.join(format!("package-{}", std::process::id()));
        std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let mut packages = Self { folder, debs: Vec::new(), archive: PathBuf::new() };
        for version in versions {
            packages.debs.push(packages.xtask(&["--only", "deb", "--version", version])?);
        }
        packages.archive = packages.xtask(&["--only", "tarball"])?;
        Ok(packages)
    }

    /// What `cargo xtask package` makes; its path.
    fn xtask(&self, words: &[&str]) -> Result<PathBuf> {
        let binaries = Binaries::find()?;
        let built = binaries.meshd.parent().context("meshd is in no folder")?;
        // `cargo xtask build` and `cargo xtask test` have built it to run.
        let xtask = target()?.join("debug/xtask");
        ensure!(xtask.is_file(), "{} is not there: run `cargo xtask build` first", xtask.display());
        let mut package = Command::new(xtask);
        package
            .args(["package", "--debug", "--binaries"])
            .arg(built)
            .arg("--out")
            .arg(&self.folder)
            .args(words);
        let made = output(&mut package)?;
        let path = made.lines().last().context("`xtask package` names no file")?;
        Ok(PathBuf::from(path))
    }

    /// The packages, in the order of their versions.
    pub fn debs(&self) -> &[PathBuf] {
        &self.debs
    }

    /// The archive.
    pub fn tarball(&self) -> &Path {
        &self.archive
    }
}

impl Drop for Packages {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.folder) {
            eprintln!("{}: {error}", self.folder.display());
        }
    }
}

/// Where cargo puts what it builds: this program is in its folder `debug/deps`.
fn target() -> Result<PathBuf> {
    let program = std::env::current_exe().context("where this program is")?;
    program.ancestors().nth(3).map(Path::to_owned).context("this program is not where cargo puts tests")
}
