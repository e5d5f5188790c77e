//! A scrape over HTTP: the listener that daemons have, before a node with many endpoints.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{Arc, Mutex},
    time::SystemTime,
};

use bytes::Bytes;
use mesh_agent::{LocalTask, Snapshot};
use mesh_metrics::{
    Facts, Limits, Member, Metrics, Process,
    http::{Answer, Bounds, TurnedAway, serve},
    text::Format,
};
use mesh_types::ClusterView;

use crate::kernel::Node;

/// What an answer is made of.
pub struct Source {
    /// What the kernel counts.
    pub node: Node,
    /// Names.
    pub view: Arc<ClusterView>,
    /// Of these.
    pub tasks: Vec<LocalTask>,
    /// All else, without endpoints.
    pub rest: Snapshot,
    /// Who has series of its own.
    pub metrics: Metrics,
}

impl Source {
    /// With so many series of each kind.
    pub fn limit(&mut self, series: usize) {
        self.metrics = Metrics::new(Limits { endpoints: series, services: series });
    }

    fn answer(&mut self) -> String {
        let traffic = self.node.traffic();
        let nothing = Default::default();
        let endpoints = mesh_agent::endpoint_counts(&self.view, &self.tasks, &nothing, &traffic);
        let snapshot = Snapshot { endpoints, ..self.rest.clone() };
        let member = Member { snapshot: &snapshot, role: "worker", manager: None };
        let process = Process::look(SystemTime::UNIX_EPOCH);
        let facts = Facts { version: "0", process, turned_away: 0, ready: true, member: Some(member) };
        self.metrics.text(Format::Prometheus, &facts)
    }
}

/// Serves it until the program ends; where.
pub fn listen(source: Arc<Mutex<Source>>) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let answer = move |_| {
                let source = Arc::clone(&source);
                async move {
                    let text = source.lock().unwrap().answer();
                    Answer { status: 200, content_type: "text/plain", body: Bytes::from(text) }
                }
            };
            serve(listener, Bounds::default(), TurnedAway::default(), answer).await;
        });
    });
    address
}

/// Asks, and reads to the end; how many bytes there were.
pub fn scrape(address: SocketAddr) -> usize {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: n1\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer[..100]));
    answer.len()
}
