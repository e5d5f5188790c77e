//! Where the data path lives while no daemon runs: a folder on a BPF file system.
//!
//! ```text
//! <bpf_dir>/v3/            maps, by the version of their layout
//! <bpf_dir>/v3/programs-*/ programs that use these maps, for the next daemon; by the object's digest
//! <bpf_dir>/v3-old/        maps of another size, until what is attached uses the new ones
//! <bpf_dir>/links/         attached programs, one link each
//! <bpf_dir>/clsact/        a folder for each filter on a kernel without links for tc (before 6.6)
//! ```

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use mesh_abi::LAYOUT_VERSION;
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

use crate::{clsact, error::Error, object, sys};

/// Tells our mounts from others' in `/proc/self/mountinfo`.
const MOUNT_SOURCE: &str = "meshd-bpf";

/// Ends the name of a folder with maps that were put aside.
const OUTGROWN: &str = "-old";

/// Begins the name of a folder with programs.
const PROGRAMS: &str = "programs-";

/// The folders of one data path.
#[derive(Debug, Clone)]
pub(crate) struct Pins {
    root: PathBuf,
}

impl Pins {
    /// Makes the folders, on a BPF file system mounted for it if need be.
    pub(crate) fn prepare(root: &Path) -> Result<Self, Error> {
        create(root)?;
        let kind = statfs(root).map_err(|e| file("look at", root)(e.into()))?.filesystem_type();
        if kind != BPF_FS_MAGIC {
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
            mount(Some(MOUNT_SOURCE), root, Some("bpf"), flags, Some("mode=0700"))
                .map_err(|e| Error::Mount { path: root.to_owned(), source: e.into() })?;
        }
        let pins = Self { root: root.to_owned() };
        for folder in [pins.maps(), pins.links(), pins.clsact()] {
            create(&folder)?;
        }
        Ok(pins)
    }

    /// The folder of the maps of this program's layout.
    pub(crate) fn maps(&self) -> PathBuf {
        self.layout(LAYOUT_VERSION)
    }

    /// The folder of the maps of a layout.
    pub(crate) fn layout(&self, version: u32) -> PathBuf {
        self.root.join(format!("v{version}"))
    }

    /// The folder of the maps of this program's layout that have been replaced by larger or smaller ones.
    pub(crate) fn outgrown(&self) -> PathBuf {
        self.root.join(format!("v{LAYOUT_VERSION}{OUTGROWN}"))
    }

    /// The folder of this object's programs. Below the maps that they use: both are put aside and taken back together.
    pub(crate) fn programs(&self) -> PathBuf {
        self.maps().join(format!("{PROGRAMS}{}", object::digest()))
    }

    /// Unpins the programs of other objects. What of them is attached stays until it is replaced.
    pub(crate) fn remove_other_programs(&self) -> Result<(), Error> {
        let current = self.programs();
        for folder in list(&self.maps())? {
            let programs =
                folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PROGRAMS));
            if programs && folder != current {
                remove_folder(&folder)?;
            }
        }
        Ok(())
    }

    /// Puts the maps aside, so that new ones take their place; false when others are there still.
    pub(crate) fn put_aside(&self) -> Result<bool, Error> {
        let (maps, aside) = (self.maps(), self.outgrown());
        if aside.exists() {
            return Ok(false);
        }
        fs::rename(&maps, &aside).map_err(file("rename", &maps))?;
        create(&maps)?;
        Ok(true)
    }

    /// The folder of the links.
    pub(crate) fn links(&self) -> PathBuf {
        self.root.join("links")
    }

    /// The folder of the marks of tc filters.
    pub(crate) fn clsact(&self) -> PathBuf {
        self.root.join("clsact")
    }

    /// Undoes [`Pins::put_aside`], if it was done.
    pub(crate) fn take_back(&self) -> Result<(), Error> {
        let (maps, aside) = (self.maps(), self.outgrown());
        if !aside.exists() {
            return Ok(());
        }
        remove_folder(&maps)?;
        fs::rename(&aside, &maps).map_err(file("rename", &aside))
    }

    /// Unpins the maps of other layouts and those put aside. The programs that still use them keep them until they are
    /// replaced.
    pub(crate) fn remove_other_layouts(&self) -> Result<(), Error> {
        let current = self.maps();
        for folder in list(&self.root)? {
            let name = folder.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            let name = name.strip_suffix(OUTGROWN).unwrap_or(&name);
            let version = name.strip_prefix('v').is_some_and(|v| v.parse::<u32>().is_ok());
            if version && folder != current {
                remove_folder(&folder)?;
            }
        }
        Ok(())
    }
}

/// Detaches whatever is pinned below `root` and removes it, with the mount if it is ours. Call it in the data path's
/// network namespace. Nothing there is no error. After an error, what could not be removed is still there.
pub(crate) fn remove(root: &Path) -> Result<(), Error> {
    if !root.exists() {
        return Ok(());
    }
    let pins = Pins { root: root.to_owned() };
    for link in list(&pins.links())? {
        detach(&link)?;
    }
    for mark in list(&pins.clsact())? {
        clsact::detach(&mark)?;
    }
    for folder in [pins.links(), pins.clsact(), pins.maps()] {
        remove_folder(&folder)?;
    }
    pins.remove_other_layouts()?;
    if is_our_mount(root)? {
        umount2(root, MntFlags::MNT_DETACH).map_err(|e| file("unmount", root)(e.into()))?;
    }
    match fs::remove_dir(root) {
        // Not ours alone.
        Err(e) if matches!(e.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::ResourceBusy) => {
            Ok(())
        }
        other => ignore_missing(other).map_err(file("remove", root)),
    }
}

/// Detaches a pinned link at once and removes its pin.
pub(crate) fn detach(pin: &Path) -> Result<(), Error> {
    match sys::obj_get(pin) {
        // An interface that is gone has taken its end of the link along.
        Ok(link) => match sys::link_detach(&link) {
            Err(e) if e.raw_os_error() != Some(libc::ENOLINK) => return Err(file("detach", pin)(e)),
            _ => {}
        },
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(file("open", pin)(e)),
    }
    ignore_missing(fs::remove_file(pin)).map_err(file("remove", pin))
}

/// The entries of a folder, sorted; none when it does not exist.
pub(crate) fn list(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(file("read", folder))?,
    };
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.map(|e| e.path()))
        .collect::<Result<_, _>>()
        .map_err(file("read", folder))?;
    paths.sort();
    Ok(paths)
}

/// For `map_err`: names the file.
pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File { action, path, source }
}

/// Removes a file that may be gone already.
pub(crate) fn remove_file(path: &Path) -> Result<(), Error> {
    ignore_missing(fs::remove_file(path)).map_err(file("remove", path))
}

/// Makes a folder, which may be there already, and those above it.
pub(crate) fn create(folder: &Path) -> Result<(), Error> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(file("create", folder))
}

/// Removes a folder of pins and all below it, which may be gone already.
pub(crate) fn remove_folder(folder: &Path) -> Result<(), Error> {
    for entry in list(folder)? {
        if entry.is_dir() {
            remove_folder(&entry)?;
        } else {
            remove_file(&entry)?;
        }
    }
    ignore_missing(fs::remove_dir(folder)).map_err(file("remove", folder))
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Whether `root` is the root of a file system that [`Pins::prepare`] mounted.
fn is_our_mount(root: &Path) -> Result<bool, Error> {
    let device = fs::metadata(root).map_err(file("look at", root))?.dev();
    let mounts = Path::new("/proc/thread-self/mountinfo");
    let text = fs::read_to_string(mounts).map_err(file("read", mounts))?;
    let device = format!("{}:{}", nix::sys::stat::major(device), nix::sys::stat::minor(device));
    let root = fs::canonicalize(root).map_err(file("look at", root))?;
    Ok(text.lines().any(|line| {
        let mut fields = line.split(' ');
        let (id, point) = (fields.nth(2), fields.nth(1));
        // Behind the separator: type, source, options.
        let source = line.split(" - ").nth(1).and_then(|rest| rest.split(' ').nth(1));
        id == Some(device.as_str()) && point == root.to_str() && source == Some(MOUNT_SOURCE)
    }))
}
