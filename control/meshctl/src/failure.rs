//! What goes wrong, how it is told, and the exit code that it gives.

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anstyle::{AnsiColor, Style};
use mesh_types::LookupError;
use thiserror::Error;

use crate::output::{error_width, plain_lines, wrapped};

/// The exit code of sysexits.h for a service that cannot be reached.
const EX_UNAVAILABLE: u8 = 69;

/// As shells tell of a process that SIGINT ended: 128 and its number.
const INTERRUPTED: u8 = 130;

/// Why a verb was not done. Nothing has changed, but with [`Failure::Lost`] and [`Failure::Silent`], after which the
/// change may or may not have been made, and [`Failure::Several`], after which some were.
#[derive(Debug, Error)]
pub enum Failure {
    /// Nobody answers on the socket.
    #[error("cannot reach the daemon at {}: {}", .socket.display(), reason(.cause))]
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// What connecting gave.
        cause: io::ErrorKind,
    },
    /// The connection broke before the answer.
    #[error("the connection to the daemon broke before it answered")]
    Lost,
    /// No answer in time.
    #[error("the daemon did not answer within {0} s")]
    Silent(u64),
    /// The daemon refused, in its own words.
    #[error("{message}")]
    Refused {
        /// The kind of refusal.
        code: tonic::Code,
        /// The daemon's words.
        message: String,
    },
    /// The daemon has no such request.
    #[error("the daemon does not know this request")]
    OtherVersion,
    /// The node is in no cluster. Context of a refusal.
    #[error("this node is in no cluster")]
    NoCluster,
    /// The arguments do not fit together.
    #[error("{0}")]
    Usage(String),
    /// Whoever was asked said no.
    #[error("nothing was removed")]
    NotConfirmed,
    /// A file that is not right, one line for each thing. Nothing was changed.
    #[error("{}", .0.join("\n"))]
    File(Vec<String>),
    /// No namespace where the user says.
    #[error("no such namespace: {0}")]
    Namespace(String),
    /// Root is needed.
    #[error("{0} needs root")]
    NeedsRoot(&'static str),
    /// `/etc/resolv.conf` is not there to be covered.
    #[error("there is no {}, so names could not be resolved inside", .0.display())]
    NoResolvConf(PathBuf),
    /// The command of `run` cannot be started.
    #[error("cannot start {command}: {}", reason(.cause))]
    Exec {
        /// The program.
        command: String,
        /// What exec gave.
        cause: io::ErrorKind,
    },
    /// Nodes that are there do not follow a change yet. The change is made.
    #[error("{text}; not yet: {late}")]
    NotProgrammed {
        /// How many do.
        text: String,
        /// Those that do not.
        late: String,
    },
    /// Ctrl-C ended it; what stays of it, if anything.
    #[error("interrupted: {0}")]
    Interrupted(&'static str),
    /// Some of several; each is told for itself.
    #[error("{} failed", .0.len())]
    Several(Vec<anyhow::Error>),
}

fn reason(cause: &io::ErrorKind) -> String {
    match cause {
        io::ErrorKind::NotFound => "no such file".to_owned(),
        io::ErrorKind::ConnectionRefused => "nobody listens there".to_owned(),
        other => other.to_string(),
    }
}

impl Failure {
    fn exit_code(&self) -> u8 {
        match self {
            Failure::Unreachable { .. } | Failure::Lost | Failure::Silent(_) => EX_UNAVAILABLE,
            Failure::Usage(_) => 2,
            Failure::Interrupted(_) => INTERRUPTED,
            Failure::Exec { cause: io::ErrorKind::NotFound, .. } => 127,
            Failure::Exec { .. } => 126,
            _ => 1,
        }
    }

    fn next(&self) -> Option<String> {
        Some(match self {
            Failure::Unreachable { cause: io::ErrorKind::PermissionDenied, .. } => {
                "Run meshctl as root, for example with sudo.".to_owned()
            }
            Failure::Unreachable { .. } => {
                "Start the daemon with `systemctl start meshd`, or name its socket \
                 with --socket or MESHCTL_SOCKET."
                    .to_owned()
            }
            Failure::Lost | Failure::Silent(_) => {
                "See `systemctl status meshd` and `journalctl -u meshd`.".to_owned()
            }
            Failure::OtherVersion => {
                "The daemon is of another version than meshctl: see `meshctl status` and `meshctl --version`."
                    .to_owned()
            }
            Failure::NoCluster => {
                "Make a cluster with `meshctl init`, or join one with `meshctl join`.".to_owned()
            }
            Failure::Namespace(_) => {
                "Give the name of a namespace under /var/run/netns, the path of one, or \
                 the pid of a process in it."
                    .to_owned()
            }
            Failure::NeedsRoot(_) => "Run meshctl as root, for example with sudo.".to_owned(),
            Failure::NoResolvConf(path) => format!("Make one, it may be empty: `touch {}`.", path.display()),
            Failure::NotProgrammed { .. } => {
                "The change is made, and nodes follow when they can: see `meshctl node ls`, and `meshctl status` on \
                 those nodes."
                    .to_owned()
            }
            Failure::Usage(_) => "For more information, try '--help'.".to_owned(),
            Failure::Refused { code: tonic::Code::NotFound, message } => {
                let kinds = ["node", "network", "service", "task"];
                let kind = kinds.iter().find(|kind| message.contains(&format!("no such {kind}")))?;
                format!("`meshctl {kind} ls` lists them.")
            }
            _ => return None,
        })
    }
}

fn next(error: &anyhow::Error) -> Option<String> {
    if let Some(failure) = error.downcast_ref::<Failure>() {
        return failure.next();
    }
    match error.downcast_ref::<LookupError>()? {
        LookupError::Unknown { kind, .. } => Some(format!("`meshctl {kind} ls` lists them.")),
        LookupError::Ambiguous { .. } => Some("Give the name, or more of the id.".to_owned()),
    }
}

/// Tells the error and what to do next on stderr; the exit code that belongs to it.
pub fn print(error: &anyhow::Error) -> ExitCode {
    if let Some(Failure::Several(errors)) = error.downcast_ref() {
        errors.iter().for_each(|error| {
            print(error);
        });
        return ExitCode::FAILURE;
    }
    let style = Style::new().bold().fg_color(Some(AnsiColor::Red.into()));
    // NoCluster only adds the way out to what the daemon says.
    let skip = usize::from(matches!(error.downcast_ref(), Some(Failure::NoCluster)));
    let text = error.chain().skip(skip).map(ToString::to_string).collect::<Vec<_>>().join(": ");
    let columns = error_width();
    let text = wrapped(&format!("meshctl: {}", plain_lines(&text)), columns);
    anstream::eprintln!("{style}meshctl:{style:#}{}", text.strip_prefix("meshctl:").unwrap_or(&text));
    if let Some(next) = next(error) {
        anstream::eprintln!("{}", wrapped(&next, columns));
    }
    ExitCode::from(error.downcast_ref::<Failure>().map_or(1, Failure::exit_code))
}

/// Nobody answers on `socket`.
pub fn unreachable(socket: &Path, cause: io::ErrorKind) -> Failure {
    Failure::Unreachable { socket: socket.to_owned(), cause }
}
