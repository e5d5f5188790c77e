//! The programs, by name. Those that an earlier daemon pinned are taken when they are of this object and use these maps:
//! the kernel's verifier needs a third of a second for all of them, and several on a small machine. Others are loaded, and
//! pinned for the next daemon.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    maps::MapInfo,
    programs::{Program, ProgramError, ProgramFd, ProgramInfo, SchedClassifier},
};
use tracing::{debug, error, warn};

use crate::{error::Error, pins, sys};

/// How often a program is loaded again that the kernel gave up since a signal was pending for the thread (`EAGAIN`), as
/// libbpf does it.
const TRIES: u32 = 10;

/// The programs of one object and the maps that they use.
pub(crate) struct Programs {
    ebpf: Ebpf,
    /// The pins, by program.
    folder: PathBuf,
    maps: Shared,
    loaded: BTreeMap<&'static str, Loaded>,
    kept: usize,
}

/// The pinned maps: names by id.
pub(crate) type Shared = BTreeMap<u32, &'static str>;

/// A program in the kernel.
pub(crate) struct Loaded {
    pub(crate) fd: ProgramFd,
    pub(crate) id: u32,
}

impl Loaded {
    fn of(info: &ProgramInfo) -> Result<Self, ProgramError> {
        Ok(Self { fd: info.fd()?, id: info.id() })
    }
}

impl Programs {
    /// Those of `ebpf`, which uses `maps`, with their pins in `folder`, which is of this object alone.
    pub(crate) fn new(ebpf: Ebpf, folder: PathBuf, maps: Shared) -> Self {
        Self { ebpf, folder, maps, loaded: BTreeMap::new(), kept: 0 }
    }

    /// How many were taken from pins.
    pub(crate) fn kept(&self) -> usize {
        self.kept
    }

    /// What the kernel knows of the programs that were loaded or taken, by their pins.
    pub(crate) fn infos(&self) -> impl Iterator<Item = (&'static str, Result<ProgramInfo, ProgramError>)> {
        self.loaded.keys().map(|name| (*name, ProgramInfo::from_pin(self.folder.join(name))))
    }

    /// The tc program of that name, in the kernel: as aya makes filters of it, and as links take it.
    pub(crate) fn tc(&mut self, name: &'static str) -> Result<(&mut SchedClassifier, &Loaded), Error> {
        let refused = |source| Error::Program { program: name, source: Box::new(without_log(name, source)) };
        self.get(name).map_err(refused)?;
        let missing = Error::Missing { kind: "program", name };
        let (Some(program), Some(loaded)) = (self.ebpf.program_mut(name), self.loaded.get(name)) else {
            return Err(missing);
        };
        Ok((program.try_into().map_err(refused)?, loaded))
    }

    /// The program of that name, in the kernel; none when the object lacks it.
    pub(crate) fn get(&mut self, name: &'static str) -> Result<Option<&Loaded>, ProgramError> {
        if !self.loaded.contains_key(name) {
            let Some(program) = self.ebpf.program_mut(name) else { return Ok(None) };
            let pin = self.folder.join(name);
            let loaded = match take(program, &pin, name, &self.maps) {
                Ok(loaded) => {
                    self.kept += 1;
                    loaded
                }
                Err(reason) => {
                    debug!(program = name, %reason, "loads a program");
                    let loaded = load(program)?;
                    if let Err(error) = keep(&loaded, &pin) {
                        warn!(program = name, %error, "cannot pin a program; the next start has to load it again");
                    }
                    loaded
                }
            };
            self.loaded.insert(name, loaded);
        }
        Ok(self.loaded.get(name))
    }
}

/// Takes the program that is pinned there, if it is what `program` would be once loaded.
fn take(program: &mut Program, pin: &Path, name: &str, maps: &Shared) -> Result<Loaded, ProgramError> {
    let other = |why: &str| ProgramError::IOError(io::Error::other(why.to_owned()));
    let info = ProgramInfo::from_pin(pin)?;
    // First of all: what is pinned may be no program, and then the rest of the information means something else.
    if info.name() != short(name) {
        return Err(other("another object is pinned"));
    }
    if info.program_type() != program.prog_type().into() {
        return Err(other("a program of another kind is pinned"));
    }
    let used = info.map_ids()?.unwrap_or_default();
    if used.is_empty() || !used.iter().all(|id| maps.contains_key(id) || is_own(*id, maps)) {
        return Err(other("the pinned program uses other maps"));
    }
    let loaded = Loaded::of(&info)?;
    if let Program::SchedClassifier(program) = program {
        *program = SchedClassifier::from_pin(pin)?;
    }
    Ok(loaded)
}

/// Whether a map is the program's own: constants, notes of one packet or of a moment. Each loading makes such maps anew,
/// and nobody else reads them. One that is named as a pinned map was that before another took its place.
fn is_own(map: u32, shared: &Shared) -> bool {
    MapInfo::from_id(map).is_ok_and(|info| !shared.values().any(|name| short(name) == info.name()))
}

/// As much of a name as the kernel keeps.
fn short(name: &str) -> &[u8] {
    let name = name.as_bytes();
    name.get(..BPF_OBJ_NAME_LEN - 1).unwrap_or(name)
}

/// From the kernel's `include/uapi/linux/bpf.h`; the last byte is zero.
const BPF_OBJ_NAME_LEN: usize = 16;

fn load(program: &mut Program) -> Result<Loaded, ProgramError> {
    let mut tries = 1;
    loop {
        match load_once(program) {
            Err(ProgramError::LoadError { io_error, .. })
                if io_error.kind() == io::ErrorKind::WouldBlock && tries < TRIES =>
            {
                tries += 1;
            }
            loaded => return loaded,
        }
    }
}

/// A verifier's log may have megabytes, and what is said of it goes to whoever asked, in one line: its last words, which tell
/// why. More of it is in the daemon's log.
fn without_log(program: &str, source: ProgramError) -> ProgramError {
    let ProgramError::LoadError { io_error, verifier_log } = source else { return source };
    let log = verifier_log.to_string();
    error!(program, error = %io_error, log = end_of(&log, LOGGED), "the kernel refuses a program");
    let words = last_words(&log);
    ProgramError::IOError(io::Error::new(io_error.kind(), format!("{io_error}; the verifier says: {words}")))
}

/// So many lines of a verifier's log are told, and so many in one line.
const LOGGED: usize = 40;
const TOLD: usize = 3;
/// What is told in one line has so many bytes at most.
const WORDS: usize = 400;

/// The last lines of a text.
fn end_of(text: &str, lines: usize) -> &str {
    let begin = text.trim_end().rmatch_indices('\n').nth(lines - 1).map_or(0, |(at, _)| at + 1);
    text.get(begin..).unwrap_or_default()
}

/// The verifier's last lines, without those that count.
fn last_words(log: &str) -> String {
    let counts = ["processed ", "verification time ", "stack depth ", "max_states_per_insn "];
    let mut lines: Vec<&str> = log.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.retain(|line| !counts.iter().any(|count| line.starts_with(count)));
    let words = lines.split_off(lines.len().saturating_sub(TOLD)).join("; ");
    match words.char_indices().rev().nth(WORDS) {
        Some((begin, _)) => format!("...{}", words.get(begin..).unwrap_or_default()),
        None if words.is_empty() => "nothing".to_owned(),
        None => words,
    }
}

fn load_once(program: &mut Program) -> Result<Loaded, ProgramError> {
    let info = match program {
        Program::SchedClassifier(program) => program.load().and_then(|()| program.info()),
        Program::Xdp(program) => program.load().and_then(|()| program.info()),
        Program::CgroupSockAddr(program) => program.load().and_then(|()| program.info()),
        _ => Err(ProgramError::UnexpectedProgramType),
    };
    Loaded::of(&info?)
}

/// Pins a program in place of whatever is there.
fn keep(program: &Loaded, pin: &Path) -> Result<(), Error> {
    if let Some(folder) = pin.parent() {
        pins::create(folder)?;
    }
    if pin.is_dir() {
        pins::remove_folder(pin)?
    } else {
        pins::remove_file(pin)?
    }
    sys::obj_pin(&program.fd, pin).map_err(pins::file("pin", pin))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_log_its_end_is_told() {
        let long = "1: (bf) r6 = r1\n".repeat(100_000);
        let log = format!(
            "{long}R1 type=ctx\nthe stack depth 544 is too large\n\nprocessed 3 insns\nstack depth 544\n"
        );
        assert_eq!(last_words(&log), "1: (bf) r6 = r1; R1 type=ctx; the stack depth 544 is too large");
        assert_eq!(last_words(""), "nothing");
        assert!(last_words(&"x".repeat(100_000)).len() < WORDS + 10);
        assert_eq!(end_of("a\nb\nc\n", 2), "b\nc\n");
        assert_eq!(end_of("a", 2), "a");
    }
}
