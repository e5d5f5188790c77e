//! What programs need of the system's C library.

use std::{path::Path, process::Command};

use anyhow::{Context, Result};

use crate::command::output;

/// A version of glibc.
type Version = (u32, u32);

/// The oldest glibc that `programs` run with, as `2.34`, by the versions of the symbols that they ask for; none if all are
/// static.
pub fn glibc<'a>(programs: impl IntoIterator<Item = &'a Path>) -> Result<Option<String>> {
    let mut newest: Option<Version> = None;
    for program in programs {
        let objdump = |what: &str| {
            let said = output(Command::new("objdump").arg(what).arg(program));
            said.with_context(|| format!("objdump {what} {}", program.display()))
        };
        if !objdump("-p")?.contains(" NEEDED ") {
            continue;
        }
        newest = versions(&objdump("-T")?).chain([(2, 17)]).chain(newest).max();
    }
    Ok(newest.map(|(major, minor)| format!("{major}.{minor}")))
}

fn versions(symbols: &str) -> impl Iterator<Item = Version> {
    let after = symbols.split("GLIBC_").skip(1);
    after.filter_map(|text| {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let mut parts = text[..end].split('.');
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_symbol_counts() {
        let symbols = "0 DF *UND* 0 (GLIBC_2.2.5) free\n0 DF *UND* 0 (GLIBC_2.34) dlsym\n0 w D *UND* 0 Base x\n\
                       0 DO *UND* 0 (GLIBC_2.9) y\n0 DF *UND* 0 (GLIBC_PRIVATE) z\n";
        assert_eq!(versions(symbols).max(), Some((2, 34)));
    }
}
