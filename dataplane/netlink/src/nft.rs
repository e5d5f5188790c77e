//! Talks to the `nft` program.

use std::{
    io::{self, Write},
    process::{Command, Stdio},
};

use crate::{Error, Result};

/// What `nft -t list <what>` prints; `None` if there is nothing of that name. Without the program there is nothing: only who
/// wants to make something needs it.
pub(crate) fn list(what: &[&str]) -> Result<Option<String>> {
    let output = Command::new("nft").args(["-t", "list"]).args(what).stdin(Stdio::null()).output();
    let output = match output {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        output => output.map_err(Error::NftMissing)?,
    };
    Ok(output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned()))
}

/// Runs a script as one transaction; `table` is what it is about.
pub(crate) fn apply(table: &str, script: &str) -> Result<()> {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(Error::NftMissing)?;
    // A few hundred bytes: less than a pipe holds, so writing before reading cannot block for ever.
    let written = match child.stdin.take() {
        Some(mut stdin) => stdin.write_all(script.as_bytes()),
        None => Err(io::Error::from(io::ErrorKind::BrokenPipe)),
    };
    let output = child.wait_with_output().map_err(Error::NftMissing)?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Error::Nft { table: table.to_owned(), message });
    }
    written.map_err(Error::NftMissing)
}
