//! What each eBPF program costs the kernels' verifiers, kept as a table in `docs/verifier-budget.md`.

mod page;

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, bail};
use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use mesh_tests::verifier::{self, Verified};
use nix::sys::utsname::uname;

use self::page::{Measured, Page};
use crate::{
    command::{self, workspace},
    compile,
    progress::step,
    vm_test,
};

const PAGE: &str = "docs/verifier-budget.md";

/// How to keep the table.
#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    machine: vm_test::MachineOptions,
    /// Write nothing; fail when the table is out of date by more than a tenth.
    #[arg(long)]
    check: bool,
}

/// Measures on this kernel and on Debian's, writes or compares the table, and fails when a program is refused or over
/// the budget.
pub fn run(options: &Options) -> Result<()> {
    command::need_root("verifier-budget")?;
    vm_test::prepare()?;
    let test = compile::test("mesh-tests", "verifier")?;
    let here = step("this kernel", || on_this_kernel(&test))?;
    let release = uname().context("uname")?.release().to_string_lossy().into_owned();
    let told = vm_test::verify(&options.machine, test)?;
    let faults: Vec<String> = [(&release, &here), (&told.kernel, &told.programs)]
        .into_iter()
        .flat_map(|(kernel, programs)| {
            programs.iter().filter_map(move |p| Some(format!("{kernel}: {}", p.fault()?)))
        })
        .collect();
    if !faults.is_empty() {
        bail!("{}", faults.join("\n"));
    }
    if !told.findings.all_so() {
        bail!("in the virtual machine:\n{}", told.findings.table());
    }
    let page = Page::of(&[
        Measured { kernel: format!("{} (Debian)", minor(&told.kernel)), programs: told.programs },
        Measured { kernel: minor(&release), programs: here },
    ]);
    let path = workspace().join(PAGE);
    if options.check {
        let kept = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let differences = page.differences(&kept);
        if !differences.is_empty() {
            bail!(
                "{PAGE} is out of date; run `cargo xtask verifier-budget`:\n  {}",
                differences.join("\n  ")
            );
        }
        println!("{PAGE} is up to date");
        return Ok(());
    }
    fs::write(&path, page.to_string()).with_context(|| format!("cannot write {}", path.display()))?;
    println!("{}", page.table());
    println!("written to {PAGE}");
    Ok(())
}

/// The test's findings on this kernel, whether or not it passes.
fn on_this_kernel(test: &Path) -> Result<Vec<Verified>> {
    let folder = workspace().join("target/vm");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let file = folder.join(format!("verified-{}.json", std::process::id()));
    let ran = mesh_tests::succeed(Command::new(test).env(verifier::FINDINGS, &file));
    let found = fs::read(&file);
    let _ = fs::remove_file(&file);
    match (found, ran) {
        (Ok(text), _) => serde_json::from_slice(&text).context("the findings of the verifier's test"),
        (Err(_), Err(error)) => Err(error),
        (Err(error), Ok(())) => Err(error).context("the verifier's test wrote no findings"),
    }
}

/// `6.1` of `6.1.0-56-amd64`.
fn minor(release: &str) -> String {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    [numbers.next(), numbers.next()].map(Option::unwrap_or_default).join(".")
}

/// The programs and their costs, for a terminal.
pub fn table(programs: &[Verified]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["program", "kind", "instructions", "processed", "of the budget"]);
    for program in programs {
        let mut cells = vec![program.program.clone(), program.kind.clone()];
        match program.outcome {
            Ok(cost) => cells.extend([
                page::grouped(cost.size),
                page::grouped(cost.processed),
                page::percent(cost.processed),
            ]),
            Err(_) => cells.push("REFUSED".to_owned()),
        }
        table.add_row(cells);
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn major_and_minor_version() {
        assert_eq!(minor("6.1.0-56-amd64"), "6.1");
        assert_eq!(minor("6.18-rc1"), "6.18");
    }
}
