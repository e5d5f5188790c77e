//! `meshctl`, the command line of meshd. It talks to the daemon of its own node, over a unix socket.
//!
//! Noun, then verb; one file per verb. Every verb prints a page or a table for people, and with `--format json` what
//! the types of [`report`] say, for programs. Exit codes: 0 done; 1 refused or failed; 2 wrong usage; 69 the daemon
//! cannot be reached; `run` ends with the code of its command, 126 or 127 when that cannot be started.

#![forbid(unsafe_code)]

mod apply;
mod attach;
mod ca;
mod capture;
mod cli;
mod cluster;
mod complete;
mod completion;
mod connectivity;
mod context;
mod daemon;
mod dashboard;
mod debug;
mod detach;
mod dns;
mod doctor;
mod drain;
mod elsewhere;
mod events;
mod export;
mod failure;
mod filter;
mod flows;
mod init;
mod intent;
mod join;
mod join_token;
mod label;
mod leave;
mod listing;
mod live;
mod log_level;
mod man;
mod monitor;
mod name;
mod namespace;
mod network;
mod node;
mod output;
mod ping;
mod ports;
mod publish;
mod removal;
mod report;
mod run;
mod sandbox;
mod service;
mod status;
mod stop_signal;
mod supervise;
mod systemd;
mod task;
mod task_options;
mod template;
mod top;
mod trace;
mod unlock;
mod unlock_key;
mod unpublish;
mod wait;

use std::process::ExitCode;

fn main() -> ExitCode {
    complete::answer_shell();
    let done = match supervise::BecomeArgs::of_process() {
        Some(args) => supervise::become_command(&args),
        None => cli::Cli::of_process().execute(),
    };
    match done {
        Ok(code) => code,
        Err(error) => failure::print(&error),
    }
}
