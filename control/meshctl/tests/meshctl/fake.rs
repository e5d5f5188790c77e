//! The daemon: canned answers, and what it was asked.

mod control;
mod local;

use std::{
    path::PathBuf,
    process::{Command, Output},
    sync::{Arc, Mutex},
    thread::JoinHandle,
};

use mesh_api::{
    transport::unix_incoming,
    v1::{self, cluster_server::ClusterServer, control_server::ControlServer, local_server::LocalServer},
};
use tempfile::TempDir;
use tokio::{net::UnixListener, sync::oneshot};
use tonic::{Code, Request, Response, Status, transport::Server};

use crate::data::{self, PROD, TASK_WEB_1};

/// What `meshctl run` looked like while it waited for the answer to its attach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub pid: u32,
    pub network_namespace: PathBuf,
    pub mount_namespace: PathBuf,
}

/// How the daemon behaves, and what it saw.
#[derive(Debug, Default)]
pub struct Script {
    /// Answers every change and attach with this.
    pub refusal: Option<(Code, String)>,
    /// In no cluster.
    pub inactive: bool,
    /// What views come with.
    pub warnings: Vec<String>,
    /// Answers views with what is none.
    pub nonsense: bool,
    /// A label would steer a terminal.
    pub hostile: bool,
    /// There is a network that nobody uses.
    pub spare: bool,
    pub resolv_conf: String,
    /// The debug texts of the changes asked for.
    pub asked: Vec<String>,
    pub callers: Vec<Caller>,
    /// How many times a draining task is still draining when asked for; then it is drained.
    pub drains: usize,
    /// What is then still open.
    pub flows_cut: u64,
    /// Somebody has asked it to drain.
    pub draining: bool,
    /// How many times a node is not programmed yet when asked for.
    pub late: usize,
}

/// A running daemon, stopped on drop.
pub struct Fake {
    folder: TempDir,
    script: Arc<Mutex<Script>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Fake {
    pub fn start(script: Script) -> Self {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("meshd.sock");
        let script = Arc::new(Mutex::new(script));
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let service = Service(script.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = UnixListener::bind(path).unwrap();
                ready.send(()).unwrap();
                Server::builder()
                    .add_service(LocalServer::new(service.clone()))
                    .add_service(ClusterServer::new(service.clone()))
                    .add_service(ControlServer::new(service))
                    .serve_with_incoming_shutdown(unix_incoming(listener), async {
                        let _ = stopped.await;
                    })
                    .await
                    .unwrap();
            });
        });
        is_ready.recv().unwrap();
        Self { folder, script, stop: Some(stop), thread: Some(thread) }
    }

    pub fn refusing(code: Code, message: &str) -> Self {
        Self::start(Script { refusal: Some((code, message.to_owned())), ..Script::default() })
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("meshd.sock")
    }

    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// A command line that goes to this daemon.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_meshctl"));
        command.arg("--socket").arg(self.socket()).args(words).env_remove("MESHCTL_SOCKET");
        command
    }

    pub fn run(&self, words: &str) -> Outcome {
        let words: Vec<&str> = words.split_whitespace().collect();
        Outcome::from(self.command(&words).output().unwrap())
    }

    /// What a verb that works prints.
    pub fn print(&self, words: &str) -> String {
        let outcome = self.run(words);
        assert_eq!((outcome.code, outcome.errors.as_str()), (Some(0), ""), "{words}");
        outcome.text
    }

    pub fn json(&self, words: &str) -> serde_json::Value {
        serde_json::from_str(&self.print(&format!("--format json {words}"))).unwrap()
    }

    pub fn asked(&self) -> Vec<String> {
        self.script.lock().unwrap().asked.clone()
    }

    pub fn callers(&self) -> Vec<Caller> {
        self.script.lock().unwrap().callers.clone()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the fake daemon panicked");
        }
    }
}

/// How meshctl ended.
#[derive(Debug)]
pub struct Outcome {
    pub code: Option<i32>,
    pub text: String,
    pub errors: String,
}

impl From<Output> for Outcome {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            text: String::from_utf8(output.stdout).unwrap(),
            errors: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// The answer to a call that has several.
type Answers<T> =
    std::pin::Pin<Box<dyn tonic::codegen::tokio_stream::Stream<Item = Result<T, Status>> + Send>>;

#[derive(Clone)]
pub struct Service(Arc<Mutex<Script>>);

impl Service {
    /// How many times it was asked for something that begins so.
    pub fn asked_for(&self, what: &str) -> usize {
        self.0.lock().unwrap().asked.iter().filter(|asked| asked.starts_with(what)).count()
    }

    pub fn change<T: std::fmt::Debug, R>(
        &self,
        request: Request<T>,
        answer: R,
    ) -> Result<Response<R>, Status> {
        let mut script = self.0.lock().unwrap();
        script.asked.push(format!("{:?}", request.into_inner()));
        match &script.refusal {
            Some((code, message)) => Err(Status::new(*code, message.clone())),
            None => Ok(Response::new(answer)),
        }
    }

    fn remove(&self, request: Request<v1::RemoveRequest>) -> Result<Response<v1::RemoveResponse>, Status> {
        let name = request.get_ref().reference.clone();
        if name == "used" {
            return Err(Status::failed_precondition("it is used by service web"));
        }
        self.change(request, v1::RemoveResponse { id: PROD.to_owned(), name })
    }

    /// The only task that it has.
    fn task(&self, reference: &str) -> Result<v1::LocalTask, Status> {
        // Nobody has it, or another node.
        let elsewhere = |name: &&str| reference == *name || reference.ends_with(&format!("netns/{name}"));
        if reference == "red" || ["nothing", "web.2"].iter().any(elsewhere) {
            return Err(Status::not_found(format!("no such task: {reference}")));
        }
        let mut script = self.0.lock().unwrap();
        let (drain, flows_cut) = match (script.draining, script.drains) {
            (false, _) => (v1::DrainState::Unspecified, 0),
            (true, 0) => (v1::DrainState::Drained, script.flows_cut),
            (true, _) => (v1::DrainState::Draining, 0),
        };
        if script.draining {
            script.drains = script.drains.saturating_sub(1);
        }
        Ok(v1::LocalTask {
            task_id: TASK_WEB_1.to_owned(),
            namespace: "pid 4711".to_owned(),
            pid: 4711,
            name: "web.1".to_owned(),
            weight: 1,
            drain: drain.into(),
            drain_left_secs: u32::from(drain == v1::DrainState::Draining) * 25,
            last_check: Some(v1::LastCheck { age_millis: 4321, took_millis: 2, failure: String::new() }),
            flows_cut,
            flows: Some(3),
            endpoints: data::endpoints().into_iter().take(1).collect(),
            dns: Some(v1::TaskDns {
                servers: vec!["192.0.2.53".to_owned()],
                options: vec!["ndots:0".to_owned()],
                hostname: "web-a".to_owned(),
                ..v1::TaskDns::default()
            }),
            host_ports: vec![v1::Port {
                published: 8080,
                target: 80,
                protocol: 1,
                mode: 2,
                ..v1::Port::default()
            }],
            owners: vec!["cni:prod/4f1e/eth0".to_owned()],
            ..v1::LocalTask::default()
        })
    }

    fn service(&self, name: &str) -> v1::Service {
        data::view().services.into_iter().find(|service| service.name == name).unwrap()
    }
}
