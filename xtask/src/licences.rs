//! The licences of all dependencies against the list in deny.toml, from `cargo metadata` alone.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::command;

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    license_file: Option<String>,
}

/// Names each dependency whose licence is not on the list.
pub fn check() -> Result<()> {
    let path = command::workspace().join("deny.toml");
    let config = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let allowed = allowed(&config);
    let mut cargo = command::cargo("metadata");
    cargo.args(["--format-version", "1", "--locked", "--offline"]);
    cargo.args(["--filter-platform", "x86_64-unknown-linux-gnu"]);
    let text = command::output(&mut cargo).context("`cargo metadata` failed")?;
    let metadata: Metadata = serde_json::from_str(&text).context("what cargo metadata printed")?;
    let refused: Vec<String> =
        metadata.packages.iter().filter_map(|package| refusal(package, &allowed)).collect();
    if !refused.is_empty() {
        bail!("licences that deny.toml does not allow:\n  {}", refused.join("\n  "));
    }
    Ok(())
}

/// The strings of `allow = [...]` under `[licenses]`, written one a line as rustfmt-like tools do.
fn allowed(config: &str) -> BTreeSet<&str> {
    let section = config.split("[licenses]").nth(1).unwrap_or_default();
    let list = section.split("allow = [").nth(1).unwrap_or_default();
    let list = list.split(']').next().unwrap_or_default();
    list.split('"').skip(1).step_by(2).collect()
}

fn refusal(package: &Package, allowed: &BTreeSet<&str>) -> Option<String> {
    let Some(expression) = &package.license else {
        let file = package.license_file.as_deref().unwrap_or("none stated");
        return Some(format!("{} {}: {file}", package.name, package.version));
    };
    (!satisfied(expression, allowed)).then(|| format!("{} {}: {expression}", package.name, package.version))
}

/// Whether an SPDX expression can be met with `allowed`. `OR` binds weaker than `AND`; `/` is the old way to write `OR`.
fn satisfied(expression: &str, allowed: &BTreeSet<&str>) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    any(&mut rest, allowed) && rest.is_empty()
}

fn any(words: &mut &[&str], allowed: &BTreeSet<&str>) -> bool {
    let mut met = all(words, allowed);
    while let [first, rest @ ..] = *words
        && *first == "OR"
    {
        *words = rest;
        met |= all(words, allowed);
    }
    met
}

fn all(words: &mut &[&str], allowed: &BTreeSet<&str>) -> bool {
    let mut met = one(words, allowed);
    while let [first, rest @ ..] = *words
        && *first == "AND"
    {
        *words = rest;
        met &= one(words, allowed);
    }
    met
}

fn one(words: &mut &[&str], allowed: &BTreeSet<&str>) -> bool {
    let [first, rest @ ..] = *words else { return false };
    *words = rest;
    if *first == "(" {
        let met = any(words, allowed);
        let [")", rest @ ..] = *words else { return false };
        *words = rest;
        return met;
    }
    let mut name = (*first).to_owned();
    if let ["WITH", exception, rest @ ..] = *words {
        *words = rest;
        name = format!("{name} WITH {exception}");
    }
    allowed.contains(name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions() {
        let allowed = BTreeSet::from(["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "ISC"]);
        for good in [
            "MIT",
            "MIT/GPL-3.0",
            "GPL-2.0 OR (MIT AND ISC)",
            "(MIT OR GPL-2.0) AND ISC",
            "Apache-2.0 WITH LLVM-exception",
        ] {
            assert!(satisfied(good, &allowed), "{good}");
        }
        for bad in ["", "GPL-3.0", "MIT AND GPL-2.0", "(MIT", "MIT ISC", "OR MIT"] {
            assert!(!satisfied(bad, &allowed), "{bad}");
        }
    }

    #[test]
    fn list_of_the_configuration() {
        let config = "[licenses]\nallow = [\n  \"MIT\",\n  \"ISC\",\n]\n[bans]\nallow = [\"x\"]\n";
        assert_eq!(allowed(config), BTreeSet::from(["MIT", "ISC"]));
    }
}
