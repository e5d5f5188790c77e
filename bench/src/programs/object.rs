//! Programs that the daemons have not loaded, since they have no use for them on a veth pair: loaded here from the same
//! object, with the daemons' maps.

use std::{fs, os::fd::AsFd, path::Path};

use anyhow::{Context, Result};
use aya::{Ebpf, EbpfLoader, programs::Xdp};

use super::bpf::Program;

/// Loads the XDP program of that name with the maps pinned below `pins`, the folder of a running daemon. None if there is
/// no such program.
pub fn xdp(pins: &Path, name: &str) -> Result<Option<Program>> {
    let mut ebpf = with_maps(pins, mesh_lb::OBJECT)?;
    let Some(program) = ebpf.program_mut(name) else { return Ok(None) };
    let program: &mut Xdp = program.try_into().with_context(|| format!("{name} is no XDP program"))?;
    program.load().with_context(|| format!("loading {name}"))?;
    let fd = program.fd().with_context(|| format!("loading {name}"))?.as_fd().try_clone_to_owned();
    Ok(Some(Program::from(fd.context("a program's descriptor")?)))
}

/// Reads an object; its maps are those pinned below `pins`, the folder of a running daemon.
pub fn with_maps(pins: &Path, object: &[u8]) -> Result<Ebpf> {
    let folder = names(pins)?.into_iter().find(|name| is_layout(name));
    let folder = pins.join(folder.with_context(|| format!("no maps below {}", pins.display()))?);
    let maps = names(&folder)?;
    let mut loader = EbpfLoader::new();
    for map in &maps {
        loader.map_pin_path(map, folder.join(map));
    }
    loader.load(object).context("reading the programs")
}

/// Whether a folder has the maps of a layout: `v` and its number.
fn is_layout(name: &str) -> bool {
    name.strip_prefix('v').is_some_and(|version| version.parse::<u32>().is_ok())
}

fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    entries
        .map(|entry| Ok(entry.context("reading a folder")?.file_name().to_string_lossy().into_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_told_from_other_folders() {
        assert!(is_layout("v2") && !is_layout("links") && !is_layout("vxlan") && !is_layout("v"));
    }
}
