//! What can go wrong.

use std::{io, path::PathBuf};

use thiserror::Error;

/// Why the data path could not be opened, attached or changed. Each variant says what state it leaves.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The pins' folder is on no BPF file system and none could be mounted there. Nothing changed.
    #[error(
        "cannot mount a BPF file system on {path}, which keeps the data path while meshd restarts; mount one by \
         `mount -t bpf bpf {path}` or choose a folder below /sys/fs/bpf"
    )]
    Mount {
        /// The pins' folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file, folder or pin could not be used. What was done before stays.
    #[error("cannot {action} {path}")]
    File {
        /// `create`, `read`, `remove`, ...
        action: &'static str,
        /// The file, folder or pin.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The object with the programs could not be parsed or its maps not be made. Maps made before stay pinned, empty.
    #[error("cannot load the eBPF object")]
    Object(#[source] Box<aya::EbpfError>),
    /// The object lacks a program or map: it was not built from this source. Nothing is attached.
    #[error("the eBPF object has no {kind} {name}")]
    Missing {
        /// `program` or `map`.
        kind: &'static str,
        /// Its name.
        name: &'static str,
    },
    /// A map has another shape than this program's. Nothing is attached.
    #[error("map {map} cannot be used")]
    Map {
        /// The map.
        map: &'static str,
        /// Why.
        source: Box<aya::maps::MapError>,
    },
    /// The kernel refused a program. Nothing is attached by it; what ran before goes on.
    #[error("the kernel refuses program {program}")]
    Program {
        /// The program.
        program: &'static str,
        /// Why, with the verifier's log.
        source: Box<aya::programs::ProgramError>,
    },
    /// A program could not be attached. Another that ran there before goes on.
    #[error("cannot attach {what} to {target}")]
    Attach {
        /// The program's place in the data path.
        what: String,
        /// The interface or cgroup.
        target: String,
        /// Why.
        source: io::Error,
    },
    /// No cgroup v2 hierarchy is mounted. Nothing changed.
    #[error(
        "no cgroup v2 hierarchy is mounted, so published ports cannot be opened on localhost; mount one by \
         `mount -t cgroup2 none /sys/fs/cgroup`"
    )]
    NoCgroup,
    /// More is desired than a map holds, and it cannot be made larger. Nothing was written.
    #[error("{map} has room for {capacity} entries, {wanted} are wanted")]
    Full {
        /// The map.
        map: &'static str,
        /// How many it holds.
        capacity: u32,
        /// How many are wanted, for `MAGLEV` together with what no gap was large enough for.
        wanted: usize,
    },
    /// The monotonic clock could not be read. Nothing changed.
    #[error("cannot read the clock")]
    Clock {
        /// Why.
        source: io::Error,
    },
    /// The kernel does not count the runs of programs. Nothing changed.
    #[error("the kernel does not count what BPF programs take")]
    ProgramStats {
        /// Why.
        source: io::Error,
    },
    /// A map could not be written. What was written before stays, and is in itself consistent; the next `apply` goes on
    /// from there.
    #[error("cannot {action} {map}")]
    Write {
        /// `write`, `delete from`, `read`.
        action: &'static str,
        /// The map.
        map: &'static str,
        /// Why.
        source: Box<aya::maps::MapError>,
    },
}
