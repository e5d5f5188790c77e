//! What the kernel's verifier makes of the data path's programs: the form in which `tests/verifier.rs` tells, on this
//! kernel or on another one in a virtual machine.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Instructions that the verifier may process for one program. The kernel refuses a program at 1,000,000
/// (`BPF_COMPLEXITY_LIMIT_INSNS`); a fifth of it leaves room for kernels whose verifier prunes less, and keeps starts short.
pub const BUDGET: u32 = 200_000;

/// Names the file that `tests/verifier.rs` writes its findings to, as JSON: a list of [`Verified`].
pub const FINDINGS: &str = "MESHD_VERIFIER_FINDINGS";

/// One program, and what the running kernel's verifier made of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// Its name.
    pub program: String,
    /// The kind of program, in the kernel's words: `tc`, `xdp`, `cgroup/connect4`.
    pub kind: String,
    /// Its cost, or the end of what the verifier said when it refused.
    pub outcome: Result<Cost, String>,
}

/// What a program costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// Instructions of the loaded program.
    pub size: u32,
    /// Instructions that the verifier processed: each as often as it was reached in a state not seen before.
    pub processed: u32,
}

impl Verified {
    /// Why it is not good enough, if so.
    pub fn fault(&self) -> Option<String> {
        let name = &self.program;
        match &self.outcome {
            Err(log) => Some(format!("{name}: the verifier refuses it:\n{log}")),
            Ok(cost) if cost.processed > BUDGET => Some(format!(
                "{name}: the verifier processes {} instructions; the budget is {BUDGET}, and at 1000000 it refuses",
                cost.processed
            )),
            Ok(_) => None,
        }
    }
}

/// The file that [`FINDINGS`] names.
pub fn findings_file() -> Option<PathBuf> {
    std::env::var_os(FINDINGS).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verified(outcome: Result<u32, &str>) -> Verified {
        let outcome = outcome.map(|processed| Cost { size: 10, processed }).map_err(str::to_owned);
        Verified { program: "p".to_owned(), kind: "tc".to_owned(), outcome }
    }

    #[test]
    fn refused_or_over_budget_is_a_fault() {
        assert_eq!(verified(Ok(BUDGET)).fault(), None);
        assert!(verified(Ok(BUDGET + 1)).fault().unwrap().contains("budget"));
        assert!(verified(Err("R1 invalid mem access")).fault().unwrap().contains("R1 invalid"));
    }
}
