//! The daemon: canned answers, and what it was asked.

use std::{
    path::PathBuf,
    process::{Command, Output},
    sync::{Arc, Mutex},
    thread::JoinHandle,
};

use mesh_api::{
    transport::unix_incoming,
    v1::{
        self,
        cluster_server::ClusterServer,
        control_server::{Control, ControlServer},
        local_server::{Local, LocalServer},
    },
};
use tempfile::TempDir;
use tokio::{net::UnixListener, sync::oneshot};
use tonic::{Code, Request, Response, Status, transport::Server};

use crate::data::{self, NODE_1, NODE_2, NODE_3, PROD, SPARE, TASK_WEB_1, WEB};

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
        if reference == "red" || reference == "nothing" || reference.ends_with("netns/nothing") {
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

#[tonic::async_trait]
impl Local for Service {
    async fn open_dashboard(
        &self,
        request: Request<v1::OpenDashboardRequest>,
    ) -> Result<Response<v1::OpenDashboardResponse>, Status> {
        let answer = v1::OpenDashboardResponse {
            address: "127.0.0.1:7380".to_owned(),
            url: "https://127.0.0.1:7380/#login=once".to_owned(),
            fingerprint: "AB:CD:EF".to_owned(),
            login_secs: 120,
            idle_secs: 900,
        };
        self.change(request, answer)
    }

    async fn trace(&self, request: Request<v1::TraceRequest>) -> Result<Response<v1::TraceResponse>, Status> {
        let dropped = request.get_ref().port == 81;
        self.change(request, data::trace(dropped))
    }

    type WatchStream = Answers<v1::WatchEvent>;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let events = data::watched(request.get_ref().capture.is_some()).into_iter().map(Ok);
        self.change(request, Box::pin(tonic::codegen::tokio_stream::iter(events)))
    }

    type ListFlowsStream = Answers<v1::ListFlowsResponse>;

    async fn list_flows(
        &self,
        request: Request<v1::ListFlowsRequest>,
    ) -> Result<Response<Self::ListFlowsStream>, Status> {
        let sums = v1::FlowSums { seen: 9, matched: 2 };
        let last = v1::ListFlowsResponse { flows: Vec::new(), sums: Some(sums) };
        let parts = vec![v1::ListFlowsResponse { flows: data::flows(), sums: None }, last];
        self.change(request, Box::pin(tonic::codegen::tokio_stream::iter(parts.into_iter().map(Ok))))
    }

    async fn init(&self, request: Request<v1::InitRequest>) -> Result<Response<v1::InitResponse>, Status> {
        let answer = v1::InitResponse {
            cluster_id: data::CLUSTER.to_owned(),
            node_id: NODE_1.to_owned(),
            worker_token: "MESHTKN-1-abc-def".to_owned(),
            managers: vec!["192.168.1.1:2377".to_owned()],
        };
        self.change(request, answer)
    }

    async fn join_cluster(
        &self,
        request: Request<v1::JoinClusterRequest>,
    ) -> Result<Response<v1::JoinClusterResponse>, Status> {
        let answer = v1::JoinClusterResponse {
            cluster_id: data::CLUSTER.to_owned(),
            node_id: NODE_2.to_owned(),
            role: v1::Role::Worker.into(),
            catching_up: false,
        };
        self.change(request, answer)
    }

    async fn restore_cluster(
        &self,
        request: Request<v1::RestoreClusterRequest>,
    ) -> Result<Response<v1::InitResponse>, Status> {
        let answer = v1::InitResponse {
            cluster_id: data::CLUSTER.to_owned(),
            node_id: NODE_1.to_owned(),
            worker_token: "MESHTKN-1-abc-def".to_owned(),
            managers: vec!["192.168.1.1:2377".to_owned()],
        };
        self.change(request, answer)
    }

    async fn leave_cluster(
        &self,
        request: Request<v1::LeaveClusterRequest>,
    ) -> Result<Response<v1::LeaveClusterResponse>, Status> {
        self.change(request, v1::LeaveClusterResponse {})
    }

    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        if self.0.lock().unwrap().inactive {
            return Ok(Response::new(v1::StatusResponse {
                version: "0.1.0".to_owned(),
                state: "inactive".to_owned(),
                ..Default::default()
            }));
        }
        Ok(Response::new(data::status()))
    }

    async fn dump_gossip(
        &self,
        _: Request<v1::DumpGossipRequest>,
    ) -> Result<Response<v1::DumpGossipResponse>, Status> {
        Ok(Response::new(data::gossip_dump()))
    }

    async fn get_snapshot(
        &self,
        request: Request<v1::GetSnapshotRequest>,
    ) -> Result<Response<v1::NodeSnapshot>, Status> {
        let looks = self.asked_for("GetSnapshotRequest");
        self.change(request, data::snapshot(looks as u64))
    }

    async fn get_view(
        &self,
        _: Request<v1::GetViewRequest>,
    ) -> Result<Response<v1::GetViewResponse>, Status> {
        let script = self.0.lock().unwrap();
        if script.inactive {
            return Err(Status::failed_precondition("this node is not in a cluster"));
        }
        let mut view = data::view();
        if script.nonsense {
            view.networks[0].vni = 0;
        }
        if script.hostile {
            let text = "\u{1b}]0;x\u{7}\r\n\u{202e}b".to_owned();
            view.networks[2].labels.insert("team".to_owned(), text);
        }
        if script.spare {
            let name = "spare".to_owned();
            let other = view.networks[0].clone();
            view.networks.push(v1::Network { id: SPARE.to_owned(), name, ingress: false, ..other });
        }
        Ok(Response::new(v1::GetViewResponse {
            view: Some(view),
            this_node: NODE_1.to_owned(),
            listeners: data::listeners(),
            warnings: script.warnings.clone(),
            managers: data::managers(),
            statuses: Vec::new(),
        }))
    }

    async fn list_tasks(
        &self,
        _: Request<v1::ListTasksRequest>,
    ) -> Result<Response<v1::ListTasksResponse>, Status> {
        let member =
            |id: &str, state: v1::MemberState| v1::Member { node_id: id.to_owned(), state: state.into() };
        Ok(Response::new(v1::ListTasksResponse {
            endpoints: data::endpoints(),
            members: vec![member(NODE_2, v1::MemberState::Alive), member(NODE_3, v1::MemberState::Down)],
            local: vec![v1::LocalTask {
                task_id: TASK_WEB_1.to_owned(),
                namespace: "pid 4711".to_owned(),
                pid: 4711,
                ..v1::LocalTask::default()
            }],
            reserved: Vec::new(),
        }))
    }

    async fn attach(
        &self,
        request: Request<v1::AttachRequest>,
    ) -> Result<Response<v1::AttachResponse>, Status> {
        let mut resolv_conf = Vec::new();
        if let Some(v1::attach_request::Namespace::Pid(pid)) = request.get_ref().namespace {
            let link = |kind: &str| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
            let caller = Caller { pid, network_namespace: link("net"), mount_namespace: link("mnt") };
            let mut script = self.0.lock().unwrap();
            script.callers.push(caller);
            resolv_conf = script.resolv_conf.clone().into_bytes();
        }
        let answer = v1::AttachResponse {
            task_id: TASK_WEB_1.to_owned(),
            name: "web.1".to_owned(),
            endpoints: data::endpoints().into_iter().take(1).collect(),
            nameserver: "127.0.0.11".to_owned(),
            search: Vec::new(),
            resolv_conf,
            ..v1::AttachResponse::default()
        };
        self.change(request, answer)
    }

    async fn detach(
        &self,
        request: Request<v1::DetachRequest>,
    ) -> Result<Response<v1::DetachResponse>, Status> {
        self.change(
            request,
            v1::DetachResponse { task_id: TASK_WEB_1.to_owned(), name: "web.1".to_owned(), ended: true },
        )
    }

    async fn ping(&self, request: Request<v1::PingRequest>) -> Result<Response<v1::PingResponse>, Status> {
        let request = request.into_inner();
        if request.to != "n2" {
            return Err(Status::not_found(format!("there is no node {}", request.to)));
        }
        Ok(Response::new(v1::PingResponse {
            name: request.to,
            path: "data path, from 192.168.0.1".to_owned(),
            address: "192.168.0.2".to_owned(),
            answered: request.packet_size <= 1500,
            micros: 1234,
            too_large: false,
        }))
    }

    async fn reach(&self, _: Request<v1::ReachRequest>) -> Result<Response<v1::ReachResponse>, Status> {
        Ok(Response::new(v1::ReachResponse {
            nodes: vec![v1::NodeReach {
                node_id: NODE_2.to_owned(),
                open: vec!["gossip-udp".to_owned(), "gossip-tcp".to_owned()],
                open_back: vec!["gossip-tcp".to_owned(), "manager".to_owned()],
                closed_back: vec!["gossip-udp".to_owned()],
                version: env!("CARGO_PKG_VERSION").to_owned(),
                ..Default::default()
            }],
            ..Default::default()
        }))
    }

    async fn reserve(
        &self,
        request: Request<v1::ReserveRequest>,
    ) -> Result<Response<v1::ReserveResponse>, Status> {
        self.change(request, v1::ReserveResponse::default())
    }

    async fn change_log(
        &self,
        request: Request<v1::ChangeLogRequest>,
    ) -> Result<Response<v1::LogStatus>, Status> {
        let asked = request.get_ref().clone();
        let in_force = if asked.directives.is_empty() { "info".to_owned() } else { asked.directives };
        let left_secs = Some(asked.for_secs).filter(|secs| *secs > 0);
        let (configured, place) = ("info".to_owned(), "journald".to_owned());
        self.change(request, v1::LogStatus { in_force, configured, left_secs, place, lost: 2 })
    }

    async fn set_aliases(
        &self,
        request: Request<v1::SetAliasesRequest>,
    ) -> Result<Response<v1::LocalTask>, Status> {
        self.change(request, v1::LocalTask::default())
    }

    async fn release(
        &self,
        request: Request<v1::ReleaseRequest>,
    ) -> Result<Response<v1::ReleaseResponse>, Status> {
        self.change(request, v1::ReleaseResponse::default())
    }

    async fn explain_name(
        &self,
        request: Request<v1::ExplainNameRequest>,
    ) -> Result<Response<v1::ExplainNameResponse>, Status> {
        let request = request.into_inner();
        self.0.lock().unwrap().asked.push(format!("{request:?}"));
        if request.task != "web.1" {
            return Err(Status::not_found(format!("no such task on this node: {}", request.task)));
        }
        let lookup = |name: &str, r#type: &str| v1::Lookup {
            name: name.to_owned(),
            r#type: r#type.to_owned(),
            ..v1::Lookup::default()
        };
        let lookups = vec![
            v1::Lookup {
                code: "NXDOMAIN".to_owned(),
                network: "prod".to_owned(),
                why: "network prod has no such name, and nobody else is asked for its names".to_owned(),
                ..lookup("db.prod.", "A")
            },
            v1::Lookup {
                code: "NOERROR".to_owned(),
                records: vec!["db.corp.example. 60 IN A 192.0.2.7".to_owned()],
                why: "not known here; asked outside".to_owned(),
                upstream: "192.0.2.53:53, asked from the task".to_owned(),
                ..lookup("db.corp.example.", "A")
            },
        ];
        Ok(Response::new(v1::ExplainNameResponse { task: request.task, lookups }))
    }

    async fn get_task(
        &self,
        request: Request<v1::GetTaskRequest>,
    ) -> Result<Response<v1::LocalTask>, Status> {
        let task = self.task(&request.get_ref().reference)?;
        self.0.lock().unwrap().asked.push(format!("{:?}", request.into_inner()));
        Ok(Response::new(task))
    }

    async fn update_task(
        &self,
        request: Request<v1::UpdateTaskRequest>,
    ) -> Result<Response<v1::LocalTask>, Status> {
        let task = self.task(&request.get_ref().reference)?;
        let weight = request.get_ref().weight;
        self.change(request, v1::LocalTask { weight, flows: None, ..task })
    }

    async fn drain_task(
        &self,
        request: Request<v1::DrainTaskRequest>,
    ) -> Result<Response<v1::LocalTask>, Status> {
        self.0.lock().unwrap().draining = true;
        let task = self.task(&request.get_ref().reference)?;
        self.change(request, v1::LocalTask { flows: None, ..task })
    }

    async fn unlock(
        &self,
        request: Request<v1::UnlockRequest>,
    ) -> Result<Response<v1::UnlockResponse>, Status> {
        self.change(request, v1::UnlockResponse::default())
    }

    async fn connect_network(
        &self,
        request: Request<v1::ConnectNetworkRequest>,
    ) -> Result<Response<v1::LocalTask>, Status> {
        let task = self.task(&request.get_ref().task)?;
        self.change(request, task)
    }

    async fn disconnect_network(
        &self,
        request: Request<v1::DisconnectNetworkRequest>,
    ) -> Result<Response<v1::LocalTask>, Status> {
        let task = self.task(&request.get_ref().task)?;
        self.change(request, task)
    }
}

#[tonic::async_trait]
impl Control for Service {
    type WatchTrafficStream = Answers<v1::TrafficReport>;

    async fn watch_traffic(
        &self,
        _: Request<v1::WatchTrafficRequest>,
    ) -> Result<Response<Self::WatchTrafficStream>, Status> {
        Err(Status::unimplemented("no verb asks for it"))
    }

    async fn order_task(&self, _: Request<v1::TaskOrder>) -> Result<Response<v1::OrderReport>, Status> {
        Err(Status::unimplemented("no verb asks for it"))
    }

    async fn create_network(
        &self,
        request: Request<v1::CreateNetworkRequest>,
    ) -> Result<Response<v1::Network>, Status> {
        let network = data::view().networks.into_iter().find(|network| network.id == PROD);
        self.change(request, network.unwrap())
    }

    async fn get_progress(
        &self,
        request: Request<v1::ProgressRequest>,
    ) -> Result<Response<v1::ProgressResponse>, Status> {
        let mut script = self.0.lock().unwrap();
        script.asked.push(format!("{:?}", request.into_inner()));
        let late =
            script.asked.iter().filter(|asked| asked.starts_with("ProgressRequest")).count() <= script.late;
        let node = |node_id: &str, name: &str, programmed, status: &str| v1::NodeProgress {
            node_id: node_id.to_owned(),
            name: name.to_owned(),
            programmed,
            status: status.to_owned(),
            ..v1::NodeProgress::default()
        };
        let nodes = vec![
            node(NODE_1, "n1", true, "ready"),
            node(NODE_2, "n2", !late, "ready"),
            node(NODE_3, "n3", false, "down"),
        ];
        Ok(Response::new(v1::ProgressResponse { nodes }))
    }

    async fn remove_network(
        &self,
        request: Request<v1::RemoveRequest>,
    ) -> Result<Response<v1::RemoveResponse>, Status> {
        self.remove(request)
    }

    async fn create_service(
        &self,
        request: Request<v1::CreateServiceRequest>,
    ) -> Result<Response<v1::Service>, Status> {
        self.change(request, self.service("web"))
    }

    async fn remove_service(
        &self,
        request: Request<v1::RemoveRequest>,
    ) -> Result<Response<v1::RemoveResponse>, Status> {
        self.remove(request)
    }

    async fn publish(&self, request: Request<v1::PublishRequest>) -> Result<Response<v1::Service>, Status> {
        let mut service = self.service("web");
        assert_eq!(service.id, WEB);
        let mut ports = request.get_ref().ports.clone();
        for (number, port) in (30_000..).zip(&mut ports) {
            port.published = if port.published == 0 { number } else { port.published };
        }
        service.ports.extend(ports);
        self.change(request, service)
    }

    async fn unpublish(
        &self,
        request: Request<v1::UnpublishRequest>,
    ) -> Result<Response<v1::Service>, Status> {
        self.change(request, self.service("web"))
    }

    async fn update_service(
        &self,
        request: Request<v1::UpdateServiceRequest>,
    ) -> Result<Response<v1::Service>, Status> {
        self.change(request, self.service("web"))
    }

    type TestConnectivityStream = std::pin::Pin<
        Box<dyn tonic::codegen::tokio_stream::Stream<Item = Result<v1::TestReport, Status>> + Send>,
    >;

    async fn test_connectivity(
        &self,
        _: Request<v1::TestConnectivityRequest>,
    ) -> Result<Response<Self::TestConnectivityStream>, Status> {
        let result = |to: &str, check: &str, failure: &str| v1::TestResult {
            to_node: to.to_owned(),
            check: check.to_owned(),
            failure: failure.to_owned(),
        };
        let report = |node: &str, stage: &str, results| v1::TestReport {
            test_id: "1".to_owned(),
            node_id: node.to_owned(),
            stage: stage.to_owned(),
            results,
            ..Default::default()
        };
        let order = v1::TestOrder {
            id: "1".to_owned(),
            nodes: vec![NODE_1.to_owned(), NODE_2.to_owned()],
            ..Default::default()
        };
        let reports = [
            v1::TestReport { order: Some(order), ..report(NODE_1, "begun", Vec::new()) },
            report(
                NODE_1,
                "done",
                vec![result(NODE_1, "vip", ""), result(NODE_2, "tcp", "no answer in time")],
            ),
            v1::TestReport { failure: "no room".to_owned(), ..report(NODE_2, "failed", Vec::new()) },
        ];
        Ok(Response::new(Box::pin(tonic::codegen::tokio_stream::iter(reports.map(Ok)))))
    }

    type EventsStream =
        std::pin::Pin<Box<dyn tonic::codegen::tokio_stream::Stream<Item = Result<v1::Event, Status>> + Send>>;

    async fn events(
        &self,
        request: Request<v1::EventsRequest>,
    ) -> Result<Response<Self::EventsStream>, Status> {
        let mut events: Vec<_> = data::events().into_iter().map(Ok).collect();
        events.push(Err(Status::unavailable("this manager stops")));
        self.change(request, Box::pin(tonic::codegen::tokio_stream::iter(events)))
    }

    async fn update_network(
        &self,
        request: Request<v1::UpdateNetworkRequest>,
    ) -> Result<Response<v1::Network>, Status> {
        let network = data::view().networks.into_iter().find(|network| network.id == PROD);
        self.change(request, network.unwrap())
    }

    async fn set_role(&self, request: Request<v1::SetRoleRequest>) -> Result<Response<v1::Node>, Status> {
        let asked = request.get_ref().clone();
        let node = data::view().nodes.into_iter().find(|node| node.name == asked.node);
        let node = node.ok_or_else(|| Status::not_found(format!("no such node: {}", asked.node)))?;
        self.change(request, v1::Node { role: asked.role, ..node })
    }

    async fn backup(
        &self,
        request: Request<v1::BackupRequest>,
    ) -> Result<Response<v1::BackupResponse>, Status> {
        self.change(request, v1::BackupResponse { backup: b"meshd backup\n...".to_vec() })
    }

    async fn get_join_token(
        &self,
        request: Request<v1::JoinTokenRequest>,
    ) -> Result<Response<v1::JoinTokenResponse>, Status> {
        let answer = v1::JoinTokenResponse {
            token: "MESHTKN-1-abc-def".to_owned(),
            managers: vec!["192.168.1.1:2377".to_owned(), "192.168.1.4:2377".to_owned()],
        };
        self.change(request, answer)
    }

    async fn update_node(
        &self,
        request: Request<v1::UpdateNodeRequest>,
    ) -> Result<Response<v1::Node>, Status> {
        let node = data::view().nodes.into_iter().find(|node| node.id == NODE_2);
        self.change(request, node.unwrap())
    }

    async fn remove_node(
        &self,
        request: Request<v1::RemoveNodeRequest>,
    ) -> Result<Response<v1::RemoveResponse>, Status> {
        let name = request.get_ref().reference.clone();
        if name == "used" {
            return Err(Status::failed_precondition("node used is ready"));
        }
        self.change(request, v1::RemoveResponse { id: PROD.to_owned(), name })
    }
}
