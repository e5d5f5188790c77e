//! `mesh-cni`, the CNI plugin of meshd: versions 0.4.0, 1.0.0 and 1.1.0 of the [specification].
//!
//! It is a thin client of the daemon on its node: ADD attaches the container's namespace, DEL detaches it, and what
//! there is to remember is remembered by the daemon, under the name `cni:NETWORK/CONTAINER/INTERFACE` ([`Attachment`]).
//! So each operation can be done again, and nothing of its own has to be kept on disk.
//!
//! [specification]: https://github.com/containernetworking/cni/blob/spec-v1.1.0/SPEC.md
//! [`Attachment`]: environment::Attachment

#![forbid(unsafe_code)]

mod add;
mod arguments;
mod check;
mod config;
mod daemon;
mod del;
mod environment;
mod error;
mod fields;
mod gc;
mod namespace;
mod publish;
mod result;
mod status;
mod version;
mod wishes;

use std::{
    io::{Read as _, Write as _},
    process::ExitCode,
};

use serde_json::Value;

use crate::{
    config::Config,
    environment::{Attachment, Invocation, Operation},
    error::{CniError, Code},
    version::SpecVersion,
};

/// Runtimes give no larger configuration.
const LARGEST_CONFIG: u64 = 4 << 20;

fn main() -> ExitCode {
    if let Some(word) = std::env::args().nth(1) {
        return about(&word);
    }
    let mut version = SpecVersion::NEWEST.to_string();
    let done = run(&mut version);
    let failed = done.is_err();
    let told = done.unwrap_or_else(|error| Some(error.json(&version)));
    let printed = told.map_or(Ok(()), |json| writeln!(std::io::stdout(), "{json}"));
    if failed || printed.is_err() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// For people: runtimes give no arguments.
fn about(word: &str) -> ExitCode {
    let text = match word {
        "--version" | "-V" => concat!("mesh-cni ", env!("CARGO_PKG_VERSION")),
        _ => {
            "\
mesh-cni is the CNI plugin of meshd. Container runtimes run it: put it among their plugins, for example in /opt/cni/bin,
and a configuration into /etc/cni/net.d, for example prod.conflist:

  {\"cniVersion\": \"1.0.0\", \"name\": \"prod\", \"plugins\": [{\"type\": \"mesh-cni\", \"network\": \"prod\"}]}

It is given its work in the environment (CNI_COMMAND and others) and on standard input; see docs/cni.md of meshd."
        }
    };
    let printed = writeln!(std::io::stdout(), "{text}");
    let known = matches!(word, "--version" | "-V" | "--help" | "-h");
    if known && printed.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(2) }
}

/// Does what the environment says; what to print. `version` becomes that of the configuration.
fn run(version: &mut String) -> Result<Option<Value>, CniError> {
    let Invocation { operation, attachment } = Invocation::read(|name| std::env::var(name).ok())?;
    let config = read_config(operation)?;
    if let Some(given) = config.get("cniVersion").and_then(Value::as_str) {
        given.clone_into(version);
    }
    if operation == Operation::Version {
        return Ok(Some(SpecVersion::report(&config)));
    }
    let config = Config::read(&config)?;
    if config.version < SpecVersion::V1_1_0 && matches!(operation, Operation::Gc | Operation::Status) {
        let details =
            format!("the configuration is of version {}, which does not have it yet", config.version);
        return Err(CniError::new(Code::Version, "GC and STATUS need CNI version 1.1.0", details));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| CniError::new(Code::Io, "cannot start the runtime", error.to_string()))?;
    runtime.block_on(execute(operation, attachment, &config))
}

async fn execute(
    operation: Operation,
    attachment: Option<Attachment>,
    config: &Config,
) -> Result<Option<Value>, CniError> {
    match (operation, &attachment) {
        (Operation::Add, Some(attachment)) => add::add(attachment, config).await.map(Some),
        (Operation::Del, Some(attachment)) => del::del(attachment, config).await.map(|()| None),
        (Operation::Check, Some(attachment)) => check::check(attachment, config).await.map(|()| None),
        (Operation::Gc, _) => gc::gc(config).await.map(|()| None),
        (Operation::Status, _) => status::status(config).await.map(|()| None),
        // VERSION is answered without a configuration, and the others come with an attachment.
        (Operation::Version | Operation::Add | Operation::Del | Operation::Check, _) => Ok(None),
    }
}

fn read_config(operation: Operation) -> Result<Value, CniError> {
    let failed = |code, error: &dyn std::fmt::Display| {
        CniError::new(code, "cannot read the configuration on standard input", error.to_string())
    };
    let mut text = Vec::new();
    let read = std::io::stdin().lock().take(LARGEST_CONFIG).read_to_end(&mut text);
    read.map_err(|error| failed(Code::Io, &error))?;
    // Old runtimes ask for the versions without saying theirs.
    if operation == Operation::Version && text.iter().all(u8::is_ascii_whitespace) {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&text).map_err(|error| failed(Code::Decode, &error))
}
