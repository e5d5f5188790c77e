//! The programs under test.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::{Context, Result, bail};

/// Where meshd and meshctl are.
#[derive(Debug, Clone)]
pub struct Binaries {
    /// The daemon.
    pub meshd: PathBuf,
    /// The command line.
    pub meshctl: PathBuf,
}

impl Binaries {
    /// Those built beside the running program, or in the folder that `MESHD_BINARIES` names.
    ///
    /// Fails when one is missing, or older than a source file that it was built from.
    pub fn find() -> Result<Self> {
        if let Some(given) = Self::given()? {
            return Ok(given);
        }
        let program = std::env::current_exe().context("where this program is")?;
        let folder = program.parent().context("where this program is")?;
        let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
        Self::up_to_date(folder)
    }

    /// Those in the folder that `MESHD_BINARIES` names, if it names one: built before, of whatever age.
    pub fn given() -> Result<Option<Self>> {
        std::env::var_os("MESHD_BINARIES").map(|folder| Self::present(Path::new(&folder))).transpose()
    }

    /// A further program of ours beside meshd, such as `mesh-cni`; the same holds for its age.
    pub fn beside(&self, name: &str) -> Result<PathBuf> {
        let folder = self.meshd.parent().context("meshd is in no folder")?;
        let program = folder.join(name);
        if !program.is_file() {
            bail!("{} is not there: run `{}` first", program.display(), build_command(folder));
        }
        match newer_source(&program) {
            Ok(Some(source)) if std::env::var_os("MESHD_BINARIES").is_none() => {
                let hint = build_command(folder);
                bail!("{} is older than {}: run `{hint}` first", program.display(), source.display())
            }
            _ => Ok(program),
        }
    }

    /// Those in `folder`, which must not be older than their sources.
    fn up_to_date(folder: &Path) -> Result<Self> {
        let found = Self::present(folder)?;
        for program in [&found.meshd, &found.meshctl] {
            if let Some(source) = newer_source(program)? {
                let hint = build_command(folder);
                bail!("{} is older than {}: run `{hint}` first", program.display(), source.display());
            }
        }
        Ok(found)
    }

    /// Those in `folder`.
    pub fn present(folder: &Path) -> Result<Self> {
        let program = |name: &str| {
            let path = folder.join(name);
            if !path.is_file() {
                bail!("{} is not there: run `{}` first", path.display(), build_command(folder));
            }
            Ok(path)
        };
        Ok(Self { meshd: program("meshd")?, meshctl: program("meshctl")? })
    }
}

fn build_command(folder: &Path) -> &'static str {
    if folder.ends_with("release") { "cargo xtask build --release" } else { "cargo xtask build" }
}

/// A file that changed after `program` was built from it, by the list that cargo writes beside it.
fn newer_source(program: &Path) -> Result<Option<PathBuf>> {
    let modified = |path: &Path| -> Option<SystemTime> { path.metadata().ok()?.modified().ok() };
    let list = program.with_extension("d");
    let text = std::fs::read_to_string(&list).with_context(|| format!("cannot read {}", list.display()))?;
    let built = modified(program);
    let sources = text.split_once(": ").map(|(_, sources)| sources).unwrap_or_default();
    // Spaces in paths are written with a backslash.
    let sources = sources.trim().replace("\\ ", "\u{0}");
    let mut sources = sources.split(' ').map(|path| PathBuf::from(path.replace('\u{0}', " ")));
    Ok(sources.find(|source| modified(source) > built))
}
