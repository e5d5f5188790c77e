//! Commands of the documentation that take too long to be run by a test: each is one that there is.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use mesh_tests::docs::{Fate, pages};

use crate::{Cli, command::workspace};

#[test]
fn what_is_not_run_is_known_to_whom_it_is_said() -> Result<()> {
    let packages = packages()?;
    let mut known = 0;
    for page in pages()? {
        for block in &page.blocks {
            let Fate::NotRun { lines, .. } = &block.fate else { continue };
            for line in lines {
                let place = || format!("{}:{}: {line}", page.path, block.line);
                known += usize::from(is_known(line, &packages).with_context(place)?);
            }
        }
    }
    ensure!(known > 20, "only {known} commands of cargo are found");
    Ok(())
}

/// Whether a line is a command of cargo; an error if cargo, or the chore, would not know it.
fn is_known(line: &str, packages: &BTreeSet<String>) -> Result<bool> {
    let words: Vec<&str> = line.split(" #").next().unwrap_or_default().split_whitespace().collect();
    let words = &words[words.iter().take_while(|word| word.contains('=')).count()..];
    match words {
        ["cargo", "xtask", rest @ ..] => {
            Cli::try_parse_from([&["cargo xtask"], rest].concat())?;
            Ok(true)
        }
        ["cargo", ..] => {
            let after = |option| Some(words[words.iter().position(|word| *word == option)? + 1]);
            let package = after("-p").context("no package")?;
            ensure!(packages.contains(package), "there is no package {package}");
            if let Some(example) = after("--example") {
                let folder = workspace().join("dataplane").join(package.trim_start_matches("mesh-"));
                let file = folder.join("examples").join(example).with_extension("rs");
                ensure!(file.is_file(), "there is no {}", file.display());
            }
            Ok(true)
        }
        _ => Ok(false),
    }
}

/// The names of the workspace's packages.
fn packages() -> Result<BTreeSet<String>> {
    let read = |path: &Path| fs::read_to_string(path).with_context(|| path.display().to_string());
    let lock = read(&workspace().join("Cargo.lock"))?;
    // Those of others say where they are from.
    let own = lock.split("[[package]]").filter(|package| !package.contains("\nsource = "));
    Ok(own
        .filter_map(|package| Some(package.split_once("name = \"")?.1.split_once('"')?.0.to_owned()))
        .collect())
}
