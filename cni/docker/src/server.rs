//! The plugin's socket.

use std::{fs, io, os::unix::fs::PermissionsExt, path::Path};

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tracing::{debug, info, warn};

use crate::{
    http,
    plugin::{Plugin, PluginError},
};

/// Serves Docker on `socket` until the listener fails; a stale socket is replaced, one that somebody answers on is not.
pub async fn serve(plugin: Plugin, socket: &Path) -> io::Result<()> {
    let listener = listen(socket)?;
    info!(socket = %socket.display(), engine = %plugin.engine.socket().display(), "Docker's plugin is served");
    let tended = tokio::spawn(plugin.clone().tend());
    let resumed = tokio::spawn(plugin.clone().resume());
    let served = http::serve(listener, move |path, body| answer(plugin.clone(), path, body)).await;
    tended.abort();
    resumed.abort();
    served
}

fn listen(socket: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = socket.parent() {
        fs::create_dir_all(folder)?;
    }
    if std::os::unix::net::UnixStream::connect(socket).is_ok() {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "another plugin answers there"));
    }
    match fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(socket)?;
    // Whoever can ask the plugin can end tasks; Docker is root.
    fs::set_permissions(socket, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// The calls of a container's way onto a network and off it that change something.
const STEPS: [&str; 6] = [
    "IpamDriver.RequestAddress",
    "NetworkDriver.CreateEndpoint",
    "NetworkDriver.Join",
    "NetworkDriver.Leave",
    "NetworkDriver.DeleteEndpoint",
    "IpamDriver.ReleaseAddress",
];

/// The JSON that Docker gets. A refusal is an answer too, under the keys of both protocols.
pub(crate) async fn answer(plugin: Plugin, path: String, body: Bytes) -> Value {
    let call = path.trim_start_matches('/').to_owned();
    let answered = dispatch(&plugin, &call, &body).await;
    if let Some(step) = STEPS.iter().find(|step| **step == call) {
        (plugin.options.reached)(step);
    }
    debug!(call, request = %String::from_utf8_lossy(&body), answer = ?answered, "Docker asks");
    answered.unwrap_or_else(|error| {
        let mut text = error.to_string();
        if let PluginError::Malformed { source, .. } = &error {
            text.push_str(&format!(": {source}"));
        }
        warn!(call, error = text, "refused to Docker");
        json!({"Err": text, "Error": text})
    })
}

async fn dispatch(plugin: &Plugin, call: &str, body: &Bytes) -> Result<Value, PluginError> {
    let done = |()| json!({});
    match call {
        "Plugin.Activate" => Ok(json!({"Implements": ["NetworkDriver", "IpamDriver"]})),
        "NetworkDriver.GetCapabilities" => Ok(json!({"Scope": "local", "ConnectivityScope": "global"})),
        "NetworkDriver.CreateNetwork" => plugin.create_network(read(call, body)?).await.map(done),
        "NetworkDriver.DeleteNetwork" => plugin.delete_network(read(call, body)?).map(done),
        "NetworkDriver.CreateEndpoint" => plugin.create_endpoint(read(call, body)?).await,
        "NetworkDriver.DeleteEndpoint" => plugin.delete_endpoint(read(call, body)?).await.map(done),
        "NetworkDriver.EndpointOperInfo" => plugin.endpoint_info(read(call, body)?),
        "NetworkDriver.Join" => plugin.join(read(call, body)?).await,
        "NetworkDriver.Leave" => plugin.leave(read(call, body)?).await.map(done),
        // Ports are open from the join on, for as long as the endpoint is joined; nodes are found by gossip; and swarm
        // managers allocate nothing for a driver of local scope.
        "NetworkDriver.ProgramExternalConnectivity"
        | "NetworkDriver.RevokeExternalConnectivity"
        | "NetworkDriver.DiscoverNew"
        | "NetworkDriver.DiscoverDelete"
        | "NetworkDriver.AllocateNetwork"
        | "NetworkDriver.FreeNetwork" => Ok(json!({})),
        "IpamDriver.GetCapabilities" => {
            Ok(json!({"RequiresMACAddress": false, "RequiresRequestReplay": false}))
        }
        "IpamDriver.GetDefaultAddressSpaces" => Ok(plugin.address_spaces()),
        "IpamDriver.RequestPool" => plugin.request_pool(read(call, body)?).await,
        "IpamDriver.ReleasePool" => plugin.release_pool(read(call, body)?).map(done),
        "IpamDriver.RequestAddress" => plugin.request_address(read(call, body)?).await,
        "IpamDriver.ReleaseAddress" => plugin.release_address(read(call, body)?).await.map(done),
        other => Err(PluginError::UnknownCall(other.to_owned())),
    }
}

fn read<T: DeserializeOwned>(call: &str, body: &Bytes) -> Result<T, PluginError> {
    serde_json::from_slice(body).map_err(|source| PluginError::Malformed { call: call.to_owned(), source })
}
