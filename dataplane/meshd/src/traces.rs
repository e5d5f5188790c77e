//! Spans of the daemon's calls: where they go, and what is told of the process and of callers.

use std::sync::{PoisonError, RwLock};

use anyhow::Result;
use mesh_api::v1;
use mesh_trace::{Caller, Exporter, Options, TraceLayer, Value};
use tonic::{codegen::http::Extensions, transport::server::UdsConnectInfo};

use crate::{config::Config, membership::Membership};

/// Which node this is, once it is one.
static NODE: RwLock<Vec<(&'static str, Value)>> = RwLock::new(Vec::new());

/// Begins to export, if the configuration says where to. Call it within a tokio runtime.
pub fn start(config: &Config) -> Result<Option<Exporter>> {
    let Some(endpoint) = &config.traces.endpoint else { return Ok(None) };
    let host = nix::unistd::gethostname()?.to_string_lossy().into_owned();
    let process = [
        ("service.name", Value::from("meshd")),
        ("service.version", env!("CARGO_PKG_VERSION").into()),
        ("host.name", host.into()),
        ("process.pid", i64::from(std::process::id()).into()),
    ];
    let resource = move || {
        let node = NODE.read().unwrap_or_else(PoisonError::into_inner);
        process.iter().chain(node.iter()).cloned().collect()
    };
    let options =
        Options { endpoint: endpoint.parse()?, percent: config.traces.percent, resource: Box::new(resource) };
    Ok(Some(Exporter::start(options).for_process()))
}

/// From now on spans tell that they are of this node.
pub fn of_node(membership: &Membership) {
    let node = vec![
        ("service.instance.id", Value::from(membership.node.to_string())),
        ("mesh.cluster.id", membership.cluster.to_string().into()),
        ("mesh.node.name", membership.name.to_string().into()),
    ];
    *NODE.write().unwrap_or_else(PoisonError::into_inner) = node;
}

/// For the local socket: whoever may open it is trusted.
pub fn local_layer() -> TraceLayer {
    let caller = |extensions: &Extensions| {
        let cred = extensions.get::<UdsConnectInfo>().and_then(|info| info.peer_cred);
        let attributes = cred.map(|cred| ("mesh.caller.uid", i64::from(cred.uid()).into()));
        Caller { trusted: true, attributes: attributes.into_iter().collect() }
    };
    TraceLayer::new(caller, &[])
}

/// What became of spans; none: none are exported.
pub fn status() -> Option<v1::TraceStatus> {
    let exporter = Exporter::of_process()?;
    let counts = exporter.counts();
    Some(v1::TraceStatus {
        endpoint: exporter.endpoint().to_string(),
        exported: counts.exported,
        dropped: counts.dropped,
        trouble: counts.trouble.unwrap_or_default(),
    })
}
