//! A task's namespace with a name server in it, and `dig` beside.

use std::{
    os::fd::{AsFd, AsRawFd},
    process::Command,
    sync::Arc,
};

use mesh_dns::{DnsServer, DnsStats, DnsThread, Forwarder, NetworkNames, Sockets, TaskView};
use mesh_netlink::NetNs;
use tokio::sync::watch;

/// A fresh namespace with `lo` up; gone with the value, however the test ends.
pub fn namespace() -> NetNs {
    let ns = NetNs::create().unwrap();
    let up = Command::new("nsenter").args([&net(&ns), "ip", "link", "set", "lo", "up"]).status().unwrap();
    assert!(up.success());
    ns
}

fn net(ns: &NetNs) -> String {
    format!("--net=/proc/{}/fd/{}", std::process::id(), ns.as_fd().as_raw_fd())
}

/// Runs an async test body on a thread of its own inside the namespace.
pub fn inside<T: Send, F: Future<Output = T>>(ns: &NetNs, body: impl FnOnce() -> F + Send) -> T {
    ns.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(body())
    })
    .unwrap()
}

/// What `dig <arguments>` prints in the namespace, asking 127.0.0.11.
pub async fn dig(ns: &NetNs, arguments: &str) -> String {
    run(ns, "dig", &format!("@127.0.0.11 +tries=1 +time=8 {arguments}")).await
}

/// What a program prints in the namespace.
pub async fn run(ns: &NetNs, program: &str, arguments: &str) -> String {
    let mut command = tokio::process::Command::new("nsenter");
    command.args([&net(ns), program]).args(arguments.split_whitespace());
    let output = command.output().await.unwrap();
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

/// The rcode and flags that dig prints.
pub fn status(text: &str) -> (String, String) {
    let after = |mark: &str| text.split(mark).nth(1).and_then(|rest| rest.split([',', ';']).next());
    (after("status: ").unwrap_or(text).to_owned(), after("flags: ").unwrap_or("").to_owned())
}

/// Servers and their thread.
pub struct Served {
    servers: Vec<DnsServer>,
    _views: Vec<watch::Sender<Arc<TaskView>>>,
    _thread: DnsThread,
}

impl Served {
    /// What the server at `index` has counted.
    pub fn stats(&self, index: usize) -> DnsStats {
        self.servers[index].stats()
    }
}

/// A server and its thread.
pub struct One(Served);

impl One {
    /// What it has counted.
    pub fn stats(&self) -> DnsStats {
        self.0.stats(0)
    }

    /// Stops it; its sockets are closed when this returns.
    pub async fn stop(mut self) {
        for server in self.0.servers.drain(..) {
            server.stop().await;
        }
    }
}

/// Starts a server for a task of network `prod`; what it forwards it asks from the current runtime.
pub fn serve(task: &NetNs, view: TaskView, forwarder: Forwarder) -> (One, watch::Sender<Arc<TaskView>>) {
    serve_on(Sockets::open(task).unwrap(), view, forwarder)
}

/// As [`serve`], with these sockets.
pub fn serve_on(
    sockets: Sockets,
    view: TaskView,
    forwarder: Forwarder,
) -> (One, watch::Sender<Arc<TaskView>>) {
    let mut served = start([sockets], &view, &forwarder);
    let sender = served._views.remove(0);
    (One(served), sender)
}

/// Starts a server for each of the tasks, all on one thread.
pub fn serve_all(tasks: &[&NetNs], view: &TaskView, forwarder: Forwarder) -> Served {
    start(tasks.iter().map(|task| Sockets::open(task).unwrap()), view, &forwarder)
}

fn start(all: impl IntoIterator<Item = Sockets>, view: &TaskView, forwarder: &Forwarder) -> Served {
    let thread = DnsThread::start().unwrap();
    let (mut servers, mut views) = (Vec::new(), Vec::new());
    for sockets in all {
        let (sender, receiver) = watch::channel(Arc::new(view.clone()));
        servers.push(DnsServer::start(&thread, sockets, receiver, Arc::new(forwarder.for_task())).unwrap());
        views.push(sender);
    }
    Served { servers, _views: views, _thread: thread }
}

/// Network `prod` with these names.
pub fn prod(names: &[(&str, &[&str])]) -> TaskView {
    let mut prod = NetworkNames::new("prod".parse().unwrap());
    for (name, addresses) in names {
        let addresses: Vec<std::net::IpAddr> = addresses.iter().map(|a| a.parse().unwrap()).collect();
        for address in &addresses {
            prod.reverse.insert(*address, format!("{name}.prod"));
        }
        prod.forward.insert((*name).to_owned(), addresses.into());
    }
    TaskView { networks: vec![Arc::new(prod)], forward: true, ..TaskView::default() }
}
