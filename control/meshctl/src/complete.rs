//! Completion by meshctl itself: a shell asks it with `COMPLETE=bash meshctl -- WORDS`, and names of networks, services,
//! nodes and tasks come from the daemon. One that does not answer at once completes nothing.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{Arg, Command, CommandFactory};
use clap_complete::{
    ArgValueCandidates, CompletionCandidate,
    env::{CompleteEnv, Shells},
};
use mesh_api::v1::{GetViewRequest, ListTasksRequest};
use tokio::{runtime::Builder, time::timeout};

use crate::{
    cli::Cli,
    context,
    daemon::{Daemon, answer},
};

/// What says that a shell asks, and which.
const VARIABLE: &str = "COMPLETE";
/// Longest wait for names.
const ANSWER: Duration = Duration::from_millis(500);

/// What an argument names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Network,
    Service,
    Node,
    Task,
    NodeOrTask,
    TaskOrService,
}

impl Kind {
    fn has(self, other: Self) -> bool {
        match self {
            Self::NodeOrTask => matches!(other, Self::Node | Self::Task),
            Self::TaskOrService => matches!(other, Self::Task | Self::Service),
            kind => kind == other,
        }
    }
}

/// Answers a shell that asks, and ends the process then.
pub fn answer_shell() {
    CompleteEnv::with_factory(command).var(VARIABLE).bin("meshctl").completer("meshctl").complete();
}

/// What a shell runs to have meshctl complete; none for a shell that is not known.
pub fn script(shell: &str) -> Option<std::io::Result<Vec<u8>>> {
    let shells = Shells::builtins();
    let shell = shells.completer(shell)?;
    let mut script = Vec::new();
    Some(shell.write_registration(VARIABLE, "meshctl", "meshctl", "meshctl", &mut script).map(|()| script))
}

/// The command line, whose arguments know where names come from.
fn command() -> Command {
    with_names(Cli::command())
}

fn with_names(mut command: Command) -> Command {
    let verbs: Vec<String> = command.get_subcommands().map(|verb| verb.get_name().to_owned()).collect();
    for verb in verbs {
        command = command.mut_subcommand(verb, with_names);
    }
    let noun = command.get_name().to_owned();
    command.mut_args(|argument| match kind(&noun, &argument) {
        Some(kind) => argument.add(ArgValueCandidates::new(move || candidates(kind))),
        None => argument,
    })
}

/// What an argument of `verb` names, by how help calls its value.
fn kind(verb: &str, argument: &Arg) -> Option<Kind> {
    let value = argument.get_value_names().and_then(|names| names.first()).map(|name| name.as_str());
    match (argument.get_id().as_str(), value) {
        (_, Some("NODE|TASK")) => Some(Kind::NodeOrTask),
        (_, Some("TASK|SERVICE")) => Some(Kind::TaskOrService),
        ("from" | "client", _) | (_, Some("TASK" | "TASK|NAMESPACE|PID")) => Some(Kind::Task),
        (_, Some("NODE")) => Some(Kind::Node),
        ("network" | "network_add" | "network_rm" | "networks", _) if verb != "systemd-netns" => {
            Some(Kind::Network)
        }
        ("service" | "services", _) => Some(Kind::Service),
        _ => None,
    }
}

fn candidates(kind: Kind) -> Vec<CompletionCandidate> {
    let Ok(runtime) = Builder::new_current_thread().enable_all().build() else { return Vec::new() };
    let socket = socket(std::env::args_os());
    let names = runtime.block_on(async { timeout(ANSWER, names(kind, socket)).await });
    let mut names = names.ok().flatten().unwrap_or_default();
    names.sort();
    names.dedup();
    // What is no name of ours must not reach a shell.
    names.retain(|name| !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || "-_.".contains(c)));
    names.into_iter().map(CompletionCandidate::new).collect()
}

async fn names(kind: Kind, socket: PathBuf) -> Option<Vec<String>> {
    let daemon = Daemon::connect(&socket).await.ok()?;
    let mut names = Vec::new();
    if kind.has(Kind::Task) {
        let tasks = answer(daemon.local().list_tasks(ListTasksRequest {})).await.ok()?;
        names.extend(tasks.endpoints.into_iter().map(|endpoint| endpoint.name));
    }
    if kind == Kind::Task {
        return Some(names);
    }
    let view = answer(daemon.local().get_view(GetViewRequest {})).await.ok()?.view?;
    if kind.has(Kind::Network) {
        names.extend(view.networks.into_iter().map(|network| network.name));
    }
    if kind.has(Kind::Service) {
        names.extend(view.services.into_iter().map(|service| service.name));
    }
    if kind.has(Kind::Node) {
        names.extend(view.nodes.into_iter().map(|node| node.name));
    }
    Some(names)
}

/// The socket that the words so far name, else that of the environment, else the usual one.
fn socket(words: impl Iterator<Item = OsString>) -> PathBuf {
    let mut named = None;
    let mut words = words.filter_map(|word| word.into_string().ok());
    while let Some(word) = words.next() {
        match word.strip_prefix("--socket") {
            Some("") => named = words.next(),
            Some(rest) => named = rest.strip_prefix('=').map(str::to_owned).or(named),
            None => {}
        }
    }
    named.map_or_else(context::usual_socket, PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_that_name_objects_complete() {
        fn kinds(command: &Command, path: &str) -> Vec<Option<Kind>> {
            let verb =
                path.split(' ').try_fold(command, |command, word| command.find_subcommand(word)).unwrap();
            verb.get_arguments().filter_map(|argument| kind(verb.get_name(), argument)).map(Some).collect()
        }
        let command = Cli::command();
        for (path, kind) in [
            ("network inspect", Kind::Network),
            ("network rm", Kind::Network),
            ("service ps", Kind::Service),
            ("publish", Kind::Service),
            ("node rm", Kind::Node),
            ("task inspect", Kind::Task),
            ("task drain", Kind::Task),
            ("detach", Kind::Task),
            ("dns lookup", Kind::Task),
            ("capture", Kind::TaskOrService),
            ("unpublish", Kind::Service),
        ] {
            assert_eq!(kinds(&command, path), [Some(kind)], "{path}");
        }
        assert_eq!(kinds(&command, "run"), [Some(Kind::Network), Some(Kind::Service)]);
        assert_eq!(kinds(&command, "ping"), [Some(Kind::NodeOrTask), Some(Kind::Task)]);
        assert_eq!(kinds(&command, "network create"), []);
        super::command().debug_assert();
    }

    #[test]
    fn the_socket_of_the_words_counts() {
        let socket = |words: &[&str]| super::socket(words.iter().map(OsString::from));
        assert_eq!(socket(&["meshctl", "--", "meshctl", "--socket", "/a", "node"]), PathBuf::from("/a"));
        assert_eq!(socket(&["meshctl", "--socket=/a", "--socket=/b"]), PathBuf::from("/b"));
    }
}
