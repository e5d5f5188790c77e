//! Debian's kernel: fetched once as a package, unpacked below `target/vm`, never installed.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};

use crate::{command, setup};

/// Depends on the release's current kernel. That of the cloud images would not do: it has no 9p.
const META_PACKAGE: &str = "linux-image-amd64";
const PREFIX: &str = "linux-image-";

/// An unpacked kernel with its modules.
#[derive(Debug)]
pub struct Kernel {
    /// What `uname -r` prints there.
    pub release: String,
    folder: PathBuf,
}

impl Kernel {
    /// The one in `cache`; without one, that of `package`, or of the package that Debian's usual kernel depends on.
    pub fn fetched(cache: &Path, package: Option<&str>) -> Result<Self> {
        fs::create_dir_all(cache).with_context(|| format!("cannot make {}", cache.display()))?;
        let lock = cache.join("lock");
        let file = File::create(&lock).with_context(|| format!("cannot write {}", lock.display()))?;
        let _lock = Flock::lock(file, FlockArg::LockExclusive)
            .map_err(|(_, error)| error)
            .with_context(|| lock.display().to_string())?;
        let unpacked = match package {
            Some(package) => Some(cache.join(package)).filter(|folder| folder.exists()),
            None => latest(cache)?,
        };
        let folder = match unpacked {
            Some(folder) => folder,
            None => fetch(cache, package)?,
        };
        let release = folder.file_name().map(|name| name.to_string_lossy().into_owned());
        let release = release.as_deref().and_then(|name| name.strip_prefix(PREFIX));
        let release = release.with_context(|| format!("{} is no kernel package", folder.display()))?;
        Ok(Self { release: release.to_owned(), folder })
    }

    /// The bootable image.
    pub fn image(&self) -> PathBuf {
        self.folder.join("boot").join(format!("vmlinuz-{}", self.release))
    }

    /// Its modules, as they lie in `/lib/modules`.
    pub fn modules(&self) -> PathBuf {
        self.folder.join("lib/modules").join(&self.release)
    }

    /// The files of these modules and of those that they need, each after what it needs.
    pub fn with_dependencies(&self, names: &[&str]) -> Result<Vec<PathBuf>> {
        let list = self.modules().join("modules.dep");
        let text = fs::read_to_string(&list).with_context(|| format!("cannot read {}", list.display()))?;
        let files = load_order(&text, names)?;
        Ok(files.iter().map(|file| self.modules().join(file)).collect())
    }
}

/// The newest unpacked kernel; versions of one release sort as text well enough.
fn latest(cache: &Path) -> Result<Option<PathBuf>> {
    let entries = fs::read_dir(cache).with_context(|| format!("cannot read {}", cache.display()))?;
    let folders = entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX));
    Ok(folders.map(|entry| entry.path()).filter(|path| path.is_dir()).max())
}

fn fetch(cache: &Path, package: Option<&str>) -> Result<PathBuf> {
    let package = match package {
        Some(package) => package.to_owned(),
        None => usual_kernel()?,
    };
    let scratch = cache.join("unpacking");
    let _ = fs::remove_dir_all(&scratch);
    let root = scratch.join("root");
    fs::create_dir_all(&root).with_context(|| format!("cannot make {}", root.display()))?;
    download(&package, &scratch)?;
    let entries = fs::read_dir(&scratch).with_context(|| format!("cannot read {}", scratch.display()))?;
    let archive =
        entries.flatten().map(|entry| entry.path()).find(|path| path.extension() == Some("deb".as_ref()));
    let archive = archive.with_context(|| format!("apt-get left no package in {}", scratch.display()))?;
    command::run(Command::new("dpkg").arg("-x").arg(&archive).arg(&root))?;
    let release = package.strip_prefix(PREFIX).unwrap_or(&package);
    // The package's own scripts would make these lists.
    command::run(Command::new("/sbin/depmod").arg("-b").arg(&root).arg(release))?;
    let folder = cache.join(&package);
    fs::rename(&root, &folder).with_context(|| format!("cannot make {}", folder.display()))?;
    fs::remove_dir_all(&scratch).with_context(|| format!("cannot remove {}", scratch.display()))?;
    Ok(folder)
}

/// The package that Debian's usual kernel depends on.
fn usual_kernel() -> Result<String> {
    let find = || {
        let text = command::output(Command::new("apt-cache").args(["depends", META_PACKAGE]))?;
        let mut names = text.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
        names.find(|name| name.starts_with(PREFIX)).map(str::to_owned)
    };
    if let Some(found) = find() {
        return Ok(found);
    }
    update_lists()?;
    find().with_context(|| format!("apt knows no {META_PACKAGE}; name a kernel's package with --kernel"))
}

fn download(package: &str, into: &Path) -> Result<()> {
    let apt = || {
        let mut apt = setup::apt(&["download", "--quiet", package]);
        // Its own user could not write here.
        apt.args(["-o", "APT::Sandbox::User=root"]).current_dir(into);
        command::run(&mut apt)
    };
    if apt().is_ok() {
        return Ok(());
    }
    // Lists that are not of today name files that are gone.
    update_lists()?;
    apt()
}

fn update_lists() -> Result<()> {
    if !command::is_root() {
        bail!("apt's lists are missing or old; as root run `apt-get update`");
    }
    command::run(&mut setup::apt(&["update", "--quiet"]))
}

/// From `modules.dep`: the files of `names` and of all that they need, needed ones first.
fn load_order(list: &str, names: &[&str]) -> Result<Vec<String>> {
    let mut seen = BTreeSet::new();
    let mut order = Vec::new();
    for name in names {
        let ending = format!("/{name}.ko");
        let line = list.lines().find_map(|line| {
            let (file, needs) = line.split_once(':')?;
            (file.ends_with(&ending)).then_some((file, needs))
        });
        let (file, needs) = line.with_context(|| format!("the kernel has no module {name}"))?;
        // Those that others in the line need stand last.
        for file in needs.split_whitespace().rev().chain([file]) {
            if seen.insert(file) {
                order.push(file.to_owned());
            }
        }
    }
    Ok(order)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needed_modules_come_first_and_once() {
        let list = "fs/9p.ko: net/9pnet.ko fs/fscache.ko fs/netfs.ko\nnet/9pnet.ko:\nnet/9pnet_virtio.ko: net/9pnet.ko\n";
        let order = load_order(list, &["9pnet_virtio", "9p"]).unwrap();
        assert_eq!(
            order,
            ["net/9pnet.ko", "net/9pnet_virtio.ko", "fs/netfs.ko", "fs/fscache.ko", "fs/9p.ko"]
        );
        assert!(load_order(list, &["overlay"]).is_err());
    }
}
