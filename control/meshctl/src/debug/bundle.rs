//! `meshctl debug bundle`.

use std::{
    fs::OpenOptions,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
    process::Command,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result};
use mesh_api::v1::{DumpGossipRequest, GetViewRequest, ListTasksRequest, StatusRequest};

use super::archive::tar_gz;
use crate::{
    context::Context,
    daemon::{Daemon, answer},
    doctor, output,
};

/// What one file may take, in bytes: its end is kept.
const LARGEST: usize = 4 << 20;
/// How long one command may take.
const WAIT: Duration = Duration::from_secs(10);
/// What the system is asked, by the file's name.
const COMMANDS: [(&str, &[&str]); 13] = [
    ("uname.txt", &["uname", "-a"]),
    ("links.txt", &["ip", "-details", "-statistics", "link"]),
    ("addresses.txt", &["ip", "address"]),
    ("routes.txt", &["ip", "route", "show", "table", "all"]),
    ("routes6.txt", &["ip", "-6", "route", "show", "table", "all"]),
    ("rules.txt", &["ip", "rule"]),
    ("neighbours.txt", &["ip", "neighbour"]),
    ("nft.txt", &["nft", "list", "ruleset"]),
    ("sockets.txt", &["ss", "-lntup"]),
    ("sysctl.txt", &["sysctl", "net"]),
    ("mounts.txt", &["cat", "/proc/self/mounts"]),
    ("journal.txt", &["journalctl", "--unit", "meshd", "--lines", "5000", "--no-pager"]),
    ("config.txt", &["cat", "/etc/meshd/meshd.toml"]),
];
/// What is asked besides where its program is installed: rules that nftables does not list.
const WHERE_INSTALLED: [(&str, &[&str]); 2] = [
    ("iptables-legacy.txt", &["iptables-legacy-save"]),
    ("ip6tables-legacy.txt", &["ip6tables-legacy-save"]),
];
/// What tokens and keys for people begin with.
const SECRETS: [&str; 3] = ["MESHTKN-", "MESHKEY-", "-----BEGIN"];

/// Collect what helps to find a fault in one file: status, doctor, gossip, links, routes, rules, logs; no secrets
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshctl debug bundle
  meshctl debug bundle -o /tmp/n1.tar.gz

Keys, tokens and certificates are left out; names and addresses of nodes, networks and tasks are in it. Look at it before
you give it away. Run as root for firewall rules and logs.")]
pub struct Args {
    /// Where to write it; without it meshd-bundle-SECONDS.tar.gz here
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Collects, and writes the file.
pub async fn run(args: &Args, context: &Context) -> Result<()> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let folder = format!("meshd-bundle-{now}");
    let path = args.output.clone().unwrap_or_else(|| PathBuf::from(format!("{folder}.tar.gz")));
    // First, so that nobody waits in vain; nothing that is there is overwritten.
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
    let mut file = file.with_context(|| format!("cannot make {}", path.display()))?;
    let mut files = vec![
        ("meshctl.txt".to_owned(), format!("meshctl {}\n", env!("CARGO_PKG_VERSION"))),
        ("doctor.json".to_owned(), serde_json::to_string_pretty(&doctor::examine(context).await)?),
    ];
    match context.daemon().await {
        Ok(daemon) => files.extend(of_daemon(&daemon).await),
        Err(error) => files.push(("daemon.txt".to_owned(), format!("{error:#}\n"))),
    }
    for (name, words) in COMMANDS {
        files.push((name.to_owned(), of_command(words).await));
    }
    for (name, words) in WHERE_INSTALLED.iter().filter(|(_, words)| installed(words[0])) {
        files.push(((*name).to_owned(), of_command(words).await));
    }
    let files: Vec<_> = files.into_iter().map(|(name, text)| (name, bounded(&redacted(&text)))).collect();
    let written = file.write_all(&tar_gz(&folder, &files, now)).and_then(|()| file.sync_all());
    written.with_context(|| format!("cannot write {}", path.display()))?;
    output::print(&path.display().to_string())
}

async fn of_daemon(daemon: &Daemon) -> Vec<(String, String)> {
    fn text<T: std::fmt::Debug>(told: Result<T, crate::failure::Failure>) -> String {
        told.map_or_else(|error| format!("{error:#}\n"), |told| format!("{told:#?}\n"))
    }
    let mut local = daemon.local();
    let status = answer(local.status(StatusRequest {})).await;
    let view = answer(local.get_view(GetViewRequest {})).await.map(|mut told| {
        // The daemon leaves them out already.
        if let Some(view) = &mut told.view {
            view.gossip_keys.clear();
        }
        told
    });
    let tasks = answer(local.list_tasks(ListTasksRequest {})).await;
    let gossip = answer(local.dump_gossip(DumpGossipRequest {})).await;
    let files =
        [("status", text(status)), ("view", text(view)), ("tasks", text(tasks)), ("gossip", text(gossip))];
    files.map(|(name, text)| (format!("{name}.txt"), text)).into()
}

/// Whether a program is on the path.
fn installed(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).is_file()))
}

/// What a command prints, with its errors; a word about it where it cannot be run.
async fn of_command(words: &[&str]) -> String {
    let line = words.join(" ");
    let Some((program, arguments)) = words.split_first() else { return String::new() };
    let mut command = Command::new(program);
    command.args(arguments).stdin(std::process::Stdio::null());
    let mut command = tokio::process::Command::from(command);
    match tokio::time::timeout(WAIT, command.kill_on_drop(true).output()).await {
        Ok(Ok(output)) => {
            let (out, errors) =
                (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            format!("$ {line}\n{out}{errors}")
        }
        Ok(Err(error)) => format!("$ {line}\n{error}\n"),
        Err(_) => format!("$ {line}\nnot ended within {} s\n", WAIT.as_secs()),
    }
}

/// Without words that are secrets, and without what stands in PEM.
fn redacted(text: &str) -> String {
    let mut pem = false;
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        pem |= line.contains("-----BEGIN");
        let ends = line.contains("-----END");
        if pem {
            out.push_str("(left out)\n");
        } else if SECRETS.iter().any(|secret| line.contains(secret)) {
            let hide = |word: &str| {
                if SECRETS.iter().any(|s| word.contains(s)) {
                    "(left out)".to_owned()
                } else {
                    word.to_owned()
                }
            };
            out.push_str(&line.trim_end().split(' ').map(hide).collect::<Vec<_>>().join(" "));
            out.push('\n');
        } else {
            out.push_str(line);
        }
        pem &= !ends;
    }
    out
}

fn bounded(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    match bytes.len().checked_sub(LARGEST) {
        Some(cut) if cut > 0 => {
            [format!("(the first {cut} bytes left out)\n").as_bytes(), &bytes[cut..]].concat()
        }
        _ => bytes.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_left_out() {
        let text = "join with MESHTKN-1-abc-def 10.0.0.1\nplain\n-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\nafter\n";
        let told = redacted(text);
        assert!(!told.contains("abc-def") && !told.contains("MIIB"), "{told}");
        assert!(told.contains("plain") && told.contains("after") && told.contains("10.0.0.1"), "{told}");
    }

    #[test]
    fn a_file_keeps_its_end() {
        let text = format!("{}end", "x".repeat(LARGEST));
        let kept = bounded(&text);
        assert!(
            kept.len() < LARGEST + 64 && kept.ends_with(b"end") && kept.starts_with(b"(the first 3 bytes")
        );
    }
}
