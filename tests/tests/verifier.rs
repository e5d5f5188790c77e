//! Every program of the data path passes this kernel's verifier, and with a margin: no program comes near the number of
//! instructions at which kernels refuse. Needs root.
//!
//! `cargo xtask verifier-budget` runs it on this kernel and on Debian's, and keeps the figures in
//! `docs/verifier-budget.md`.
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use aya::{
    EbpfLoader,
    programs::{Program, ProgramError},
};
use mesh_tests::verifier::{Cost, Verified, findings_file};

/// Tables that take their memory at once; nothing is stored here.
const LARGE: [&str; 7] =
    ["CHOICES", "CHOICE_INDEX", "CHOICES_KEPT", "REVERSE", "REVERSE_KEPT", "FRAGMENTS", "AFFINITY"];
/// Of what the verifier says to a program that it refuses, the end tells why.
const LOG_LINES: usize = 25;

#[test]
fn every_program_is_within_the_budget() {
    assert!(nix::unistd::geteuid().is_root(), "loading programs needs root");
    let mut loader = EbpfLoader::new();
    for table in LARGE {
        loader.map_max_entries(table, 1024);
    }
    let mut ebpf = loader.load(mesh_lb::OBJECT).expect("the object's maps");
    let mut found: Vec<Verified> = ebpf
        .programs_mut()
        .map(|(name, program)| Verified {
            program: name.to_owned(),
            kind: kind(program).to_owned(),
            outcome: verify(program).map_err(|error| ending(&error)),
        })
        .collect();
    found.sort_by(|a, b| (&a.kind, &a.program).cmp(&(&b.kind, &b.program)));
    assert!(found.len() > 8, "the object holds only {found:?}");
    if let Some(file) = findings_file() {
        std::fs::write(file, serde_json::to_vec(&found).expect("JSON")).expect("the file for the findings");
    }
    let faults: Vec<String> = found.iter().filter_map(Verified::fault).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

fn kind(program: &Program) -> &'static str {
    match program {
        Program::SchedClassifier(_) => "tc",
        Program::Xdp(_) => "xdp",
        Program::CgroupSockAddr(_) => "cgroup",
        _ => "other",
    }
}

fn verify(program: &mut Program) -> Result<Cost, ProgramError> {
    match program {
        Program::SchedClassifier(program) => program.load()?,
        Program::Xdp(program) => program.load()?,
        Program::CgroupSockAddr(program) => program.load()?,
        _ => return Err(ProgramError::UnexpectedProgramType),
    }
    let info = program.info()?;
    // Eight bytes an instruction.
    let size = info.size_translated().expect("a loaded program has a size") / 8;
    let processed = info.verified_instruction_count().expect("kernels since 5.16 tell what they verified");
    Ok(Cost { size, processed })
}

fn ending(error: &ProgramError) -> String {
    let text = error.to_string();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}
