//! The page with the table: written, and compared with what was measured.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use mesh_tests::verifier::{BUDGET, Cost, Verified};

/// What one kernel made of the programs.
#[derive(Debug, Clone)]
pub struct Measured {
    /// The kernel, as the page names it.
    pub kernel: String,
    /// The programs, each of which it took.
    pub programs: Vec<Verified>,
}

/// The page. Displayed, it is its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    kernels: Vec<String>,
    /// By kind and name: the costs on each kernel.
    rows: BTreeMap<(String, String), Vec<Option<Cost>>>,
}

impl Page {
    /// The page of what was measured.
    pub fn of(measured: &[Measured]) -> Self {
        let kernels = measured.iter().map(|on| on.kernel.clone()).collect();
        let mut rows: BTreeMap<_, Vec<Option<Cost>>> = BTreeMap::new();
        for (at, on) in measured.iter().enumerate() {
            for program in &on.programs {
                let row = rows.entry((program.kind.clone(), program.program.clone())).or_default();
                row.resize(measured.len(), None);
                row[at] = program.outcome.as_ref().ok().copied();
            }
        }
        Self { kernels, rows }
    }

    /// Where the page `kept` says something else: another set of programs, or figures that differ by more than a tenth,
    /// which another compiler alone does not make. Kernels that only one of the two has are not compared.
    pub fn differences(&self, kept: &str) -> Vec<String> {
        let (header, kept) = parse(kept);
        let mut found = Vec::new();
        let ours: BTreeSet<&str> = self.rows.keys().map(|(_, program)| program.as_str()).collect();
        let theirs: BTreeSet<&str> = kept.keys().copied().collect();
        found.extend(ours.difference(&theirs).map(|name| format!("{name} is not in the table")));
        found.extend(theirs.difference(&ours).map(|name| format!("{name} is in the table, and no program")));
        for ((_, program), costs) in &self.rows {
            for (kernel, cost) in self.kernels.iter().zip(costs) {
                let column = header.iter().position(|title| *title == processed_on(kernel));
                let Some((column, row)) = column.zip(kept.get(program.as_str())) else { continue };
                let Some(cost) = cost else { continue };
                let written = row.get(column).copied().unwrap_or_default();
                if number(written).is_none_or(|written| written.abs_diff(cost.processed) > written / 10) {
                    let now = grouped(cost.processed);
                    found.push(format!("{program} on {kernel}: the table says {written}, now it is {now}"));
                }
            }
        }
        found
    }

    /// The table alone.
    pub fn table(&self) -> String {
        let mut header = vec!["program".to_owned(), "kind".to_owned(), "instructions".to_owned()];
        header.extend(self.kernels.iter().map(|kernel| processed_on(kernel)));
        header.push("of the budget".to_owned());
        let mut lines = vec![line(&header)];
        let rule = header.iter().enumerate().map(|(at, _)| if at < 2 { "---" } else { "---:" });
        lines.push(format!("|{}|", rule.collect::<Vec<_>>().join("|")));
        for ((kind, program), costs) in &self.rows {
            let show = |cost: Option<u32>| cost.map_or_else(|| "-".to_owned(), grouped);
            let most = costs.iter().flatten().map(|cost| cost.processed).max();
            let size = costs.iter().flatten().map(|cost| cost.size).max();
            let mut cells = vec![format!("`{program}`"), kind.clone(), show(size)];
            cells.extend(costs.iter().map(|cost| show(cost.map(|cost| cost.processed))));
            cells.push(most.map_or_else(|| "-".to_owned(), percent));
            lines.push(line(&cells));
        }
        lines.join("\n")
    }
}

impl fmt::Display for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "# Verifier budget

<!-- Written by `cargo xtask verifier-budget`. -->

The kernel loads a program only after its verifier has followed every path through it; it gives up at 1,000,000
instructions processed for one program. How many it needs depends on the program, on the compiler, and on how well the
kernel's version recognizes states that it has seen before. The budget is {budget} on every kernel that is tried:
`tests/tests/verifier.rs` fails beyond it, on the running kernel with every `cargo xtask test`, on Debian's with
`cargo xtask vm-test`.

`cargo xtask verifier-budget` measures anew and writes this page; with `--check` it fails when the page is off by more
than a tenth.

{table}

*Instructions* is the size of the loaded program, *processed* what the verifier went through (`verified_insns` of
`bpf_prog_info`), *of the budget* the larger one's part.",
            budget = grouped(BUDGET),
            table = self.table()
        )
    }
}

fn processed_on(kernel: &str) -> String {
    format!("processed on {kernel}")
}

fn line(cells: &[String]) -> String {
    format!("| {} |", cells.join(" | "))
}

/// Titles of the table in a page, and its rows by program, each with all cells.
fn parse(page: &str) -> (Vec<&str>, BTreeMap<&str, Vec<&str>>) {
    let mut rows = page.lines().filter_map(|line| {
        let inside = line.strip_prefix('|')?.strip_suffix('|')?;
        Some(inside.split('|').map(str::trim).collect::<Vec<_>>())
    });
    let header = rows.next().unwrap_or_default();
    let programs = rows.filter(|row| !row.iter().all(|cell| cell.starts_with("---")));
    let named = programs.filter_map(|row| Some((row.first()?.trim_matches('`'), row)));
    (header, named.collect())
}

fn number(text: &str) -> Option<u32> {
    text.replace(',', "").parse().ok()
}

/// `12,345`.
pub fn grouped(number: u32) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The part of the budget.
pub fn percent(processed: u32) -> String {
    format!("{:.1} %", f64::from(processed) * 100.0 / f64::from(BUDGET))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(programs: &[(&str, u32)]) -> Page {
        let verified = |&(name, processed): &(&str, u32)| Verified {
            program: name.to_owned(),
            kind: "tc".to_owned(),
            outcome: Ok(Cost { size: 100, processed }),
        };
        let programs: Vec<Verified> = programs.iter().map(verified).collect();
        let on = |kernel: &str| Measured { kernel: kernel.to_owned(), programs: programs.clone() };
        Page::of(&[on("6.1 (Debian)"), on("6.18")])
    }

    #[test]
    fn a_page_agrees_with_itself_and_nearly_the_same() {
        let kept = page(&[("uplink", 12_345), ("vxlan", 900)]).to_string();
        assert!(kept.contains("| `uplink` | tc | 100 | 12,345 | 12,345 | 6.2 % |"), "{kept}");
        assert_eq!(page(&[("uplink", 12_345), ("vxlan", 900)]).differences(&kept), [""; 0]);
        assert_eq!(page(&[("uplink", 13_000), ("vxlan", 850)]).differences(&kept), [""; 0]);
    }

    #[test]
    fn differences_are_named() {
        let kept = page(&[("uplink", 12_345), ("vxlan", 900)]).to_string();
        let found = page(&[("uplink", 20_000), ("uplink_xdp", 5)]).differences(&kept);
        assert_eq!(
            found,
            [
                "uplink_xdp is not in the table",
                "vxlan is in the table, and no program",
                "uplink on 6.1 (Debian): the table says 12,345, now it is 20,000",
                "uplink on 6.18: the table says 12,345, now it is 20,000",
            ]
        );
    }

    #[test]
    fn another_kernel_is_not_compared() {
        let kept = page(&[("uplink", 12_345)]).to_string().replace("6.18", "6.12");
        let found = page(&[("uplink", 20_000)]).differences(&kept);
        assert_eq!(found, ["uplink on 6.1 (Debian): the table says 12,345, now it is 20,000"]);
    }

    #[test]
    fn thousands() {
        assert_eq!([7, 999, 1000, 1_234_567].map(grouped), ["7", "999", "1,000", "1,234,567"]);
    }
}
