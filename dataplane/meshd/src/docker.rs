//! Docker's plugin, where the configuration asks for it.

use std::{path::Path, time::Duration};

use mesh_docker::{MeshSocket, Options, Plugin, serve};
use tracing::error;

use crate::{config::Config, socket};

/// How soon the socket is tried again, for instance while the daemon before this one still ends.
const AGAIN: Duration = Duration::from_secs(5);

/// Serves it for as long as the process runs. A socket that cannot be had is no reason to be without a data path.
pub async fn follow(config: Config) {
    if !config.docker.enabled {
        return;
    }
    let options = Options {
        book: config.state_dir.join("docker"),
        engine_socket: config.docker.engine_socket.clone(),
        driver: driver(&config.docker.plugin_socket),
        reached: mesh_agent::step_reached,
    };
    let plugin = Plugin::new(options, MeshSocket::new(socket::path(&config.run_dir)));
    let mut said = String::new();
    loop {
        if let Err(error) = serve(plugin.clone(), &config.docker.plugin_socket).await {
            let now = error.to_string();
            if now != said {
                error!(socket = %config.docker.plugin_socket.display(), error = now, "serve Docker's plugin");
                said = now;
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// What Docker calls a plugin: its socket's name.
fn driver(socket: &Path) -> String {
    socket.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned())
}
