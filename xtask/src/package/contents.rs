//! What both kinds of package hold.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::command::{self, workspace};

/// The programs, which are packages of the workspace too.
pub const PROGRAMS: [&str; 3] = ["meshd", "meshctl", "mesh-cni"];

/// Pages of the documentation: those for operators, and what they name.
const DOCUMENTS: [&str; 24] = [
    "addresses.md",
    "cli.md",
    "cni.md",
    "configuration.md",
    "dashboard.md",
    "dns.md",
    "docker.md",
    "firewall-and-cloud.md",
    "flows.md",
    "getting-started.md",
    "gossip.md",
    "grafana/meshd.json",
    "health.md",
    "install.md",
    "logging.md",
    "managers.md",
    "mesh-yaml.md",
    "metrics.md",
    "migrating-from-swarm.md",
    "prometheus/alerts.yaml",
    "prometheus/alerts_test.yaml",
    "security.md",
    "systemd.md",
    "troubleshooting.md",
];

/// Where the programs are.
pub struct Programs(PathBuf);

impl Programs {
    /// Those in `folder`; all have to be there.
    pub fn of(folder: &Path) -> Result<Self> {
        for name in PROGRAMS {
            let path = folder.join(name);
            ensure!(path.is_file(), "{} is not there: run `cargo xtask build` first", path.display());
        }
        Ok(Self(folder.to_owned()))
    }

    /// Copies a program to `target`, without what only debuggers read.
    pub fn install(&self, name: &str, target: &Path) -> Result<()> {
        folder_of(target)?;
        command::run(
            Command::new("strip").arg("--strip-unneeded").arg("-o").arg(target).arg(self.0.join(name)),
        )?;
        mode(target, 0o755)
    }

    /// What the CLI prints for these words.
    fn meshctl(&self, words: &[&str]) -> Result<String> {
        let mut meshctl = Command::new(self.0.join("meshctl"));
        command::output(meshctl.args(words)).with_context(|| format!("`meshctl {}` failed", words.join(" ")))
    }
}

/// Puts completions, manual pages and documentation below `share`.
pub fn install_share(programs: &Programs, share: &Path, compressed: bool) -> Result<()> {
    let completions = [
        ("bash", "bash-completion/completions/meshctl"),
        ("zsh", "zsh/site-functions/_meshctl"),
        ("fish", "fish/vendor_completions.d/meshctl.fish"),
    ];
    for (shell, place) in completions {
        write(&share.join(place), programs.meshctl(&["completion", shell])?.as_bytes(), 0o644)?;
    }
    let man = share.join("man");
    fs::create_dir_all(man.join("man1")).with_context(|| man.display().to_string())?;
    programs.meshctl(&["man", &man.join("man1").display().to_string()])?;
    for page in ["meshd.8", "mesh-cni.8"] {
        copy(&workspace().join("packaging/man").join(page), &man.join("man8").join(page), 0o644)?;
    }
    if compressed {
        for section in ["man1", "man8"] {
            for page in files(&man.join(section))? {
                compress(&page)?;
            }
        }
    }
    let documents = share.join("doc/meshd");
    for name in DOCUMENTS {
        copy(&workspace().join("docs").join(name), &documents.join(name), 0o644)?;
    }
    Ok(())
}

/// gzip without name and time, so that the same page makes the same file.
pub fn compress(path: &Path) -> Result<()> {
    command::run(Command::new("gzip").args(["-9", "--no-name", "--force"]).arg(path))
}

/// Copies a file.
pub fn copy(source: &Path, target: &Path, bits: u32) -> Result<()> {
    let bytes = fs::read(source).with_context(|| source.display().to_string())?;
    write(target, &bytes, bits)
}

/// Writes a file, and its folders.
pub fn write(target: &Path, bytes: &[u8], bits: u32) -> Result<()> {
    folder_of(target)?;
    fs::write(target, bytes).with_context(|| target.display().to_string())?;
    mode(target, bits)
}

/// Every file below `folder`, in order.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    for entry in entries {
        let path = entry.with_context(|| folder.display().to_string())?.path();
        if path.is_dir() { found.extend(files(&path)?) } else { found.push(path) }
    }
    found.sort();
    Ok(found)
}

/// What `tool` (`md5sum`, `sha256sum`) says of every file below `folder`, by paths within it.
pub fn sums(tool: &str, folder: &Path) -> Result<String> {
    let mut sums = String::new();
    for path in files(folder)? {
        let within = path.strip_prefix(folder).unwrap_or(&path);
        let said = command::output(Command::new(tool).current_dir(folder).arg(within));
        sums += &said.with_context(|| format!("{tool} {}", path.display()))?;
    }
    Ok(sums)
}

fn folder_of(path: &Path) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())
}

fn mode(path: &Path, bits: u32) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(bits)).with_context(|| path.display().to_string())
}
