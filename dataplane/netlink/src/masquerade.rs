//! The nftables table that lets tasks out by the node's own address.

use std::{
    io::{self, Write},
    process::{Command, Stdio},
};

use ipnet::Ipv4Net;

use crate::{Error, Result};

/// Makes sure that packets from `pool` leave with the node's address and that nobody outside opens a connection to an
/// address of `pool`. Only the table `ip <table>` is looked at and written, in one transaction.
///
/// Works in the namespace of the calling thread and blocks for some milliseconds.
pub fn ensure_masquerade(table: &str, pool: Ipv4Net) -> Result<()> {
    let pool = pool.trunc();
    let wanted = table_text(table, pool);
    if current(table)?.is_some_and(|now| words(&now) == words(&wanted)) {
        return Ok(());
    }
    apply(table, &format!("table ip {table}\ndelete table ip {table}\n{wanted}"))
}

/// Removes the table; one that is not there is fine.
pub fn remove_masquerade(table: &str) -> Result<()> {
    apply(table, &format!("table ip {table}\ndelete table ip {table}\n"))
}

/// The table as `nft list table` prints it.
fn table_text(table: &str, pool: Ipv4Net) -> String {
    format!(
        "table ip {table} {{\n\
         chain postrouting {{\n\
         type nat hook postrouting priority srcnat; policy accept;\n\
         ip saddr {pool} masquerade\n\
         }}\n\
         chain forward {{\n\
         type filter hook forward priority filter; policy accept;\n\
         ip daddr {pool} ct state != {{ established, related }} drop\n\
         }}\n\
         }}\n"
    )
}

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

/// The table as it is; `None` if it is not there.
fn current(table: &str) -> Result<Option<String>> {
    let output = Command::new("nft").args(["list", "table", "ip", table]).stdin(Stdio::null()).output();
    let output = output.map_err(Error::NftMissing)?;
    Ok(output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned()))
}

fn apply(table: &str, script: &str) -> Result<()> {
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
