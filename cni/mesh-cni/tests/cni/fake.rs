//! The daemon: canned answers, and what it was asked.

use std::{
    convert::Infallible,
    future::Future,
    path::PathBuf,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    thread::JoinHandle,
};

use mesh_api::{transport::unix_incoming, v1};
use tempfile::TempDir;
use tokio::{net::UnixListener, sync::oneshot};
use tonic::{
    Code, Request, Response, Status,
    body::Body,
    codegen::http,
    server::{Grpc, NamedService},
    transport::Server,
};
use tonic_prost::ProstCodec;

pub const WEB: &str = "0000000000000000000000web";
pub const PROD: &str = "000000000000000000000prod";

/// How the daemon behaves, and what it saw.
#[derive(Debug, Default)]
pub struct Script {
    /// Answers attach, detach and publish with this.
    pub refusal: Option<(Code, String)>,
    /// In no cluster.
    pub inactive: bool,
    /// Ports that service `web` has published.
    pub ports: Vec<v1::Port>,
    /// Whoever tries to publish finds that another one was quicker.
    pub published_meanwhile: bool,
    /// Owners of its tasks.
    pub owners: Vec<String>,
    /// The interface that attach and get answer with, but for its name and Ethernet address.
    pub interface: v1::TaskInterface,
    pub attached: Vec<v1::AttachRequest>,
    pub detached: Vec<String>,
    pub published: Vec<v1::PublishRequest>,
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
        let methods = Methods(script.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = UnixListener::bind(path).unwrap();
                ready.send(()).unwrap();
                let server =
                    Server::builder().add_service(Local(methods.clone())).add_service(Control(methods));
                let until = async {
                    let _ = stopped.await;
                };
                server.serve_with_incoming_shutdown(unix_incoming(listener), until).await.unwrap();
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

    /// What it was asked, and how it behaves.
    pub fn script<T>(&self, look: impl FnOnce(&mut Script) -> T) -> T {
        look(&mut self.script.lock().unwrap())
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

/// The methods that the plugin uses; any other is refused as tonic would.
#[derive(Clone)]
struct Methods(Arc<Mutex<Script>>);

impl Methods {
    async fn answer(self, request: http::Request<Body>) -> http::Response<Body> {
        let path = request.uri().path().to_owned();
        match path.rsplit('/').next().unwrap_or_default() {
            "Status" => unary(request, |_: v1::StatusRequest| Ok(self.status())).await,
            "GetView" => unary(request, |_: v1::GetViewRequest| Ok(self.view())).await,
            "ListTasks" => unary(request, |_: v1::ListTasksRequest| self.list()).await,
            "Attach" => unary(request, |asked| self.attach(asked)).await,
            "Detach" => unary(request, |asked| self.detach(asked)).await,
            "GetTask" => unary(request, |asked| self.get(asked)).await,
            "Publish" => unary(request, |asked| self.publish(asked)).await,
            other => panic!("the plugin asks for {other}"),
        }
    }

    fn refused(&self) -> Result<(), Status> {
        match &self.0.lock().unwrap().refusal {
            Some((code, message)) => Err(Status::new(*code, message.clone())),
            None => Ok(()),
        }
    }

    fn status(&self) -> v1::StatusResponse {
        let state = if self.0.lock().unwrap().inactive { "inactive" } else { "active" };
        v1::StatusResponse { state: state.to_owned(), ..Default::default() }
    }

    fn view(&self) -> v1::GetViewResponse {
        let subnet = v1::Subnet { net: "10.10.3.0/24".to_owned(), gateway: "10.10.3.1".to_owned() };
        let network = v1::Network {
            id: PROD.to_owned(),
            name: "prod".to_owned(),
            vni: 4097,
            subnets: vec![subnet],
            attachable: true,
            ..Default::default()
        };
        let place = v1::ServiceNetwork { network_id: PROD.to_owned(), ..Default::default() };
        let service = v1::Service {
            id: WEB.to_owned(),
            name: "web".to_owned(),
            networks: vec![place],
            endpoint_mode: v1::EndpointMode::Vip.into(),
            ports: self.0.lock().unwrap().ports.clone(),
            drain_timeout_secs: 30,
            ..Default::default()
        };
        let view = v1::ClusterView {
            cluster_id: "0000000000000000000000001".to_owned(),
            version: 1,
            networks: vec![network],
            services: vec![service],
            ..Default::default()
        };
        v1::GetViewResponse { view: Some(view), ..Default::default() }
    }

    fn list(&self) -> Result<v1::ListTasksResponse, Status> {
        let script = self.0.lock().unwrap();
        if script.inactive {
            return Err(Status::failed_precondition("this node is in no cluster"));
        }
        let task = |owner: &String| v1::LocalTask { owners: vec![owner.clone()], ..Default::default() };
        Ok(v1::ListTasksResponse { local: script.owners.iter().map(task).collect(), ..Default::default() })
    }

    fn attach(&self, asked: v1::AttachRequest) -> Result<v1::AttachResponse, Status> {
        self.refused()?;
        let mut script = self.0.lock().unwrap();
        let interface = self.interface(&script, asked.interface.clone(), asked.owner.clone());
        script.attached.push(asked);
        Ok(v1::AttachResponse {
            nameserver: "127.0.0.11".to_owned(),
            search: vec!["corp.example".to_owned()],
            options: vec!["ndots:0".to_owned()],
            interfaces: vec![interface],
            ..Default::default()
        })
    }

    fn interface(&self, script: &Script, interface: String, owner: String) -> v1::TaskInterface {
        v1::TaskInterface { interface, owner, ..script.interface.clone() }
    }

    fn detach(&self, asked: v1::DetachRequest) -> Result<v1::DetachResponse, Status> {
        self.refused()?;
        let mut script = self.0.lock().unwrap();
        if script.inactive {
            return Err(Status::failed_precondition("this node is in no cluster"));
        }
        script.owners.retain(|owner| *owner != asked.owner);
        script.detached.push(asked.owner);
        Ok(v1::DetachResponse::default())
    }

    fn get(&self, asked: v1::GetTaskRequest) -> Result<v1::LocalTask, Status> {
        let script = self.0.lock().unwrap();
        if !script.owners.contains(&asked.owner) {
            return Err(Status::not_found(format!("no such task: {}", asked.owner)));
        }
        let name = asked.owner.rsplit('/').next().unwrap_or_default().to_owned();
        let interface = self.interface(&script, name, asked.owner);
        Ok(v1::LocalTask { interfaces: vec![interface], ..Default::default() })
    }

    fn publish(&self, asked: v1::PublishRequest) -> Result<v1::Service, Status> {
        let mut script = self.0.lock().unwrap();
        if script.published_meanwhile {
            script.ports.extend(asked.ports);
            return Err(Status::already_exists("port 8080/tcp is published by service web"));
        }
        drop(script);
        self.refused()?;
        self.0.lock().unwrap().published.push(asked);
        Ok(v1::Service::default())
    }
}

async fn unary<Q, A>(
    request: http::Request<Body>,
    answer: impl FnOnce(Q) -> Result<A, Status> + Send,
) -> http::Response<Body>
where
    Q: prost_message::Message,
    A: prost_message::Message,
{
    let mut answer = Some(answer);
    let service = tower::service_fn(move |request: Request<Q>| {
        let answered = answer.take().map(|answer| answer(request.into_inner()));
        std::future::ready(
            answered.unwrap_or_else(|| Err(Status::internal("asked twice"))).map(Response::new),
        )
    });
    Grpc::new(ProstCodec::<A, Q>::default()).unary(service, request).await
}

/// What a message has to be, for tonic.
mod prost_message {
    pub trait Message: prost::Message + Default + Send + 'static {}
    impl<T: prost::Message + Default + Send + 'static> Message for T {}
}

macro_rules! services {
    ($($service:ident = $name:literal),*) => {$(
        #[derive(Clone)]
        struct $service(Methods);

        impl NamedService for $service {
            const NAME: &'static str = $name;
        }

        impl tower::Service<http::Request<Body>> for $service {
            type Response = http::Response<Body>;
            type Error = Infallible;
            type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

            fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
                Poll::Ready(Ok(()))
            }

            fn call(&mut self, request: http::Request<Body>) -> Self::Future {
                let methods = self.0.clone();
                Box::pin(async move { Ok(methods.answer(request).await) })
            }
        }
    )*};
}

services! { Local = "mesh.v1.Local", Control = "mesh.v1.Control" }
