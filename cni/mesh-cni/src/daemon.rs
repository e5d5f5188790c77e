//! The daemon of this node, as meshctl talks to it.

use std::{
    error::Error as _,
    future::Future,
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use mesh_api::{
    transport::unix_connect,
    v1::{StatusRequest, control_client::ControlClient, local_client::LocalClient},
};
use tokio::time::{sleep, timeout};
use tonic::{Code as Grpc, Response, Status, transport::Channel};

use crate::error::{CniError, Code};

/// Longest wait for an answer, where very many containers start or end at once. Runtimes give up after two minutes.
const ANSWER: Duration = Duration::from_secs(100);
/// How long a daemon may be away that is being restarted.
const RESTART: Duration = Duration::from_secs(3);
/// A view of thousands of nodes and services passes tonic's 4 MiB.
const LARGEST_ANSWER: usize = 256 << 20;

/// How the daemon tells users of `meshctl` what to do about a network that is for services alone.
const NOT_ATTACHABLE: &str = "name one with --service, or create the network with --attachable";

/// A connection to it.
#[derive(Debug, Clone)]
pub struct Daemon {
    channel: Channel,
}

/// Why there is no answer, or not the one asked for.
#[derive(Debug)]
pub enum Refusal {
    /// Nobody can be asked: nothing was done.
    Away(String),
    /// Asked, and no answer came: it may have been done.
    Lost(String),
    /// The daemon's own words.
    Refused(Status),
}

impl Daemon {
    /// Connects to the daemon that listens on `socket`, which may be restarting.
    pub async fn connect(socket: &Path) -> Result<Self, Refusal> {
        let until = Instant::now() + RESTART;
        loop {
            match Self::connect_once(socket).await {
                Err(Refusal::Away(_)) if Instant::now() < until => sleep(Duration::from_millis(50)).await,
                result => return result,
            }
        }
    }

    /// The same without waiting for a daemon that is away.
    pub async fn connect_once(socket: &Path) -> Result<Self, Refusal> {
        let error = match unix_connect(PathBuf::from(socket)).await {
            Ok(channel) => return Ok(Self { channel }),
            Err(error) => error,
        };
        let told = match io_cause(&error).map(io::Error::kind) {
            Some(io::ErrorKind::NotFound) => "there is no such socket".to_owned(),
            Some(io::ErrorKind::ConnectionRefused) => "nobody listens there".to_owned(),
            // Waiting would not help.
            Some(io::ErrorKind::PermissionDenied) => {
                let told = format!("no permission to use meshd's socket {}", socket.display());
                return Err(Refusal::Refused(Status::permission_denied(told)));
            }
            Some(other) => other.to_string(),
            None => "it does not answer".to_owned(),
        };
        Err(Refusal::Away(format!(
            "meshd cannot be reached at {}: {told}; start it with `systemctl start meshd`, or name its socket with \
             \"socket\"",
            socket.display()
        )))
    }

    /// The daemon's own service.
    pub fn local(&self) -> LocalClient<Channel> {
        LocalClient::new(self.channel.clone()).max_decoding_message_size(LARGEST_ANSWER)
    }

    /// Changes of the cluster, by way of the daemon.
    pub fn control(&self) -> ControlClient<Channel> {
        ControlClient::new(self.channel.clone())
    }

    /// Whether the node is in no cluster, and so has no tasks.
    pub async fn is_inactive(&self) -> bool {
        let status = answer(self.local().status(StatusRequest {})).await;
        status.is_ok_and(|status| status.state == "inactive")
    }
}

/// Waits for the answer to a call.
pub async fn answer<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Refusal> {
    match timeout(ANSWER, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        // Only what the client itself met has a source; the daemon's refusals come as a code and words.
        Ok(Err(status)) if status.source().is_some() => {
            Err(Refusal::Lost("the connection to meshd broke before it answered".to_owned()))
        }
        Ok(Err(status)) => Err(Refusal::Refused(status)),
        Err(_) => Err(Refusal::Lost(format!("meshd did not answer within {} s", ANSWER.as_secs()))),
    }
}

impl Refusal {
    /// As the runtime is told of it; `msg` says what was not done.
    pub fn told(self, msg: impl Into<String>) -> CniError {
        let (code, details) = match self {
            Self::Away(told) | Self::Lost(told) => (Code::TryAgain, told),
            Self::Refused(status) => (code(status.code()), words(&status)),
        };
        CniError::new(code, msg, details)
    }
}

fn code(code: Grpc) -> Code {
    match code {
        Grpc::NotFound | Grpc::InvalidArgument => Code::Config,
        Grpc::Unavailable | Grpc::Aborted | Grpc::DeadlineExceeded | Grpc::ResourceExhausted => {
            Code::TryAgain
        }
        _ => Code::Refused,
    }
}

/// What it says, with what to do about it where the daemon does not say it.
fn words(status: &Status) -> String {
    let text = status.message();
    let next = |text: &str| {
        if let Some(name) = text.strip_prefix("no such service: ") {
            return Some(format!("make it with `meshctl service create --network NETWORK {name}`"));
        }
        if let Some(name) = text.strip_prefix("no such network: ") {
            return Some(format!(
                "`meshctl network ls` lists those there are; make one with `meshctl network create --attachable {name}`"
            ));
        }
        None
    };
    match (status.code(), text) {
        // tonic's own answer to a request that the server's proto files do not have.
        (Grpc::Unimplemented, "") => {
            "meshd does not know this request: it is of another version than mesh-cni".to_owned()
        }
        (code, "") => code.description().to_owned(),
        (_, text) if text.ends_with(NOT_ATTACHABLE) => {
            let what = text.strip_suffix(NOT_ATTACHABLE).unwrap_or(text);
            format!(
                "{what}name one with \"service\" or MESH_SERVICE, or make a network with `meshctl network create --attachable`"
            )
        }
        (_, text) => match next(text) {
            Some(next) => format!("{text}; {next}"),
            None => text.to_owned(),
        },
    }
}

/// The operating system's error, wherever in the chain it is.
fn io_cause<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a io::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Some(io);
        }
        next = error.source();
    }
    None
}
