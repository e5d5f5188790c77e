//! What the verifier makes of the programs.

use aya::{
    EbpfLoader, VerifierLogLevel,
    programs::{CgroupSockAddr, ProgramError, ProgramInfo, SchedClassifier},
};

/// The kernel's own limit (`BPF_COMPLEXITY_LIMIT_INSNS`); other kernels walk other paths, hence the room.
const LIMIT: u32 = 1_000_000 / 4;

#[test]
fn every_program_is_taken_and_leaves_room() {
    let verbose = std::env::var_os("VERIFIER_LOG").is_some();
    let level = if verbose {
        VerifierLogLevel::VERBOSE | VerifierLogLevel::STATS
    } else {
        VerifierLogLevel::default()
    };
    let mut ebpf = EbpfLoader::new().verifier_log_level(level).load(mesh_lb::OBJECT).unwrap();
    let tc = ["from_task", "to_task", "uplink", "vxlan", "from_host"];
    for name in tc {
        let program: &mut SchedClassifier = ebpf.program_mut(name).unwrap().try_into().unwrap();
        judge(name, program.load().and_then(|()| program.info()));
    }
    let sockets =
        ["connect4", "connect6", "sendmsg4", "recvmsg4", "recvmsg6", "getpeername4", "getpeername6"];
    for name in sockets {
        let program: &mut CgroupSockAddr = ebpf.program_mut(name).unwrap().try_into().unwrap();
        judge(name, program.load().and_then(|()| program.info()));
    }
}

#[track_caller]
fn judge(name: &str, loaded: Result<ProgramInfo, ProgramError>) {
    let info = match loaded {
        Ok(info) => info,
        // The whole log is long; its end says what was wrong.
        Err(ProgramError::LoadError { verifier_log, .. }) => {
            let log = verifier_log.to_string();
            if let Ok(path) = std::env::var("VERIFIER_LOG") {
                std::fs::write(path, &log).unwrap();
            }
            let lines: Vec<_> = log.lines().collect();
            panic!("{name}:\n{}", lines[lines.len().saturating_sub(60)..].join("\n"));
        }
        Err(error) => panic!("{name}: {error}"),
    };
    let walked = info.verified_instruction_count().unwrap();
    println!("{name}: {walked} instructions walked");
    if std::env::var_os("ANY").is_none() {
        assert!(walked < LIMIT, "{name}: {walked}");
    }
}
