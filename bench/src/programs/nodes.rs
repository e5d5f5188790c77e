//! Nodes and tasks as test runs need them: loaded programs, interfaces, Ethernet addresses.

use std::{
    collections::BTreeMap,
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use mesh_abi::LAYOUT_VERSION;
use mesh_lb::Watcher;
use mesh_tests::{NetNs, Node, Task, output};
use serde_json::Value;

use super::{
    bpf::{Program, Run},
    object,
};

/// The verdict of a tc program that sends a packet on (`TC_ACT_REDIRECT`).
pub const REDIRECT: u32 = 7;
/// That of one which drops it (`TC_ACT_SHOT`).
pub const DROPPED: u32 = 2;
/// That of one which leaves it to whatever comes next (`TC_ACT_UNSPEC`).
pub const NEXT: u32 = -1i32 as u32;

/// Longer than any packet here.
const ROOM: usize = 2048;

/// A node: the programs that its daemon runs, with the maps as it filled them.
pub struct Host {
    name: String,
    namespace: PathBuf,
    pins: PathBuf,
    programs: BTreeMap<String, Program>,
    /// Its uplink's number.
    pub uplink: u32,
    /// Its uplink's Ethernet address.
    pub mac: [u8; 6],
    /// Its address.
    pub address: Ipv4Addr,
}

impl Host {
    /// Looks at a node.
    pub fn of(node: &Node, namespace: PathBuf) -> Result<Self> {
        let link = link(&mut node.command("ip")?, "eth0")?;
        Ok(Self {
            name: node.name(),
            namespace,
            pins: node.bpf_folder(),
            programs: programs_of(node.pid()?)?,
            uplink: number(&link["ifindex"]).context("the uplink's number")?,
            mac: mac(&link)?,
            address: node.address(),
        })
    }

    /// Loads the XDP program of that name unless the daemon has; whether there is one now.
    pub fn load_xdp(&mut self, name: &str) -> Result<bool> {
        if !self.programs.contains_key(name)
            && let Some(program) = object::xdp(&self.pins, name)?
        {
            self.programs.insert(name.to_owned(), program);
        }
        Ok(self.programs.contains_key(name))
    }

    /// The folder of what the daemon keeps in the kernel.
    pub fn pins(&self) -> &Path {
        &self.pins
    }

    /// Opens what watches the programs.
    pub fn watcher(&self) -> Result<Watcher> {
        let maps = self.pins.join(format!("v{LAYOUT_VERSION}"));
        Watcher::open(&maps).with_context(|| format!("watching {}", self.name))
    }

    /// A program that the daemon has loaded.
    pub fn program(&self, name: &str) -> Option<&Program> {
        self.programs.get(name)
    }

    /// Runs `work` where the node's interfaces have their numbers.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        NetNs::run_at(&self.namespace, work)
    }

    /// What a tc program at an interface makes of a packet, which it has to send on.
    pub fn forwards(&self, program: &str, ifindex: u32, packet: &[u8]) -> Result<Vec<u8>> {
        let what = || format!("{program} on {}", self.name);
        let loaded = self.program(program).with_context(|| format!("{} is not loaded", what()))?;
        let mut out = vec![0; ROOM];
        let run: Run = self.inside(|| loaded.run(packet, Some(ifindex), 1, &mut out))?.with_context(what)?;
        ensure!(run.verdict == REDIRECT, "{} does not send its packet on: {}", what(), run.verdict as i32);
        out.truncate(run.length);
        Ok(out)
    }
}

/// A task's end on its node.
#[derive(Debug, Clone, Copy)]
pub struct Seat {
    /// The host-side interface's number.
    pub ifindex: u32,
    /// The task's Ethernet address.
    pub mac: [u8; 6],
    /// Its address.
    pub address: Ipv4Addr,
}

impl Seat {
    /// Looks at a task.
    pub fn of(task: &Task) -> Result<Self> {
        let link = link(&mut task.command("ip")?, "eth0")?;
        Ok(Self {
            ifindex: number(&link["link_index"]).context("the number of the interface's other end")?,
            mac: mac(&link)?,
            address: task.address()?,
        })
    }
}

/// The programs that a process holds, by name.
fn programs_of(pid: u32) -> Result<BTreeMap<String, Program>> {
    let folder = PathBuf::from(format!("/proc/{pid}/fdinfo"));
    let entries = fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut found = BTreeMap::new();
    for entry in entries.flatten() {
        let Some(id) = program_id(&entry.path()) else { continue };
        let program = Program::by_id(id).with_context(|| format!("opening program {id}"))?;
        let name = program.name().with_context(|| format!("looking at program {id}"))?;
        found.insert(name, program);
    }
    Ok(found)
}

/// The id of the program that a descriptor stands for, if it stands for one.
fn program_id(info: &Path) -> Option<u32> {
    // A descriptor may be closed meanwhile.
    let text = fs::read_to_string(info).ok()?;
    // Links have a program's id too, but no type of program.
    text.lines().find(|line| line.starts_with("prog_type:"))?;
    text.lines().find_map(|line| line.strip_prefix("prog_id:"))?.trim().parse().ok()
}

fn link(ip: &mut Command, name: &str) -> Result<Value> {
    let text = output(ip.args(["-json", "link", "show", "dev", name]))?;
    let links: Value = serde_json::from_str(&text).context("what ip prints")?;
    Ok(links[0].clone())
}

fn number(value: &Value) -> Option<u32> {
    value.as_u64()?.try_into().ok()
}

fn mac(link: &Value) -> Result<[u8; 6]> {
    let text = link["address"].as_str().context("an interface without an Ethernet address")?;
    parse_mac(text).with_context(|| format!("{text} is no Ethernet address"))
}

fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let bytes: Option<Vec<u8>> = text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    bytes?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::programs::xdp;

    #[test]
    fn ethernet_addresses_are_read() {
        assert_eq!(parse_mac("02:00:aa:00:00:0f"), Some([2, 0, 0xaa, 0, 0, 0x0f]));
        assert_eq!(parse_mac("02:00"), None);
    }

    #[test]
    fn programs_of_a_process_are_found() {
        let ours = xdp::minimal().unwrap();
        let found = programs_of(std::process::id()).unwrap();
        assert_eq!(ours.name().unwrap(), "mesh_bench");
        let again = found.get("mesh_bench").expect("a program of this process");
        assert_eq!(again.run(&[0; 64], None, 1, &mut []).unwrap().verdict, 3);
    }
}
