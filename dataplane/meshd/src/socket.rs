//! The unix socket for `meshctl`, and the lock that keeps a second daemon off the state folder.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use mesh_api::{
    transport,
    v1::{cluster_server::ClusterServer, control_server::ControlServer, local_server::LocalServer},
};
use nix::{
    fcntl::{Flock, FlockArg},
    unistd::Group,
};
use tokio::net::UnixListener;
use tracing::info;

use crate::{
    cluster::LocalCluster, control::LocalControl, daemon::Daemon, local::LocalService,
    local_access::LocalAccessLayer, traces,
};

/// Name of the socket in the run folder.
const SOCKET: &str = "meshd.sock";
/// Whose members may use the socket too, for what [`crate::local_access`] allows them.
const GROUP: &str = "mesh";

/// A backup of a large cluster comes in one message.
const LARGEST_BACKUP: usize = 256 << 20;

/// Locks the state folder, made if need be, for as long as the result lives.
pub fn lock_state(dir: &Path) -> Result<Flock<fs::File>> {
    private_dir(dir)?;
    let path = dir.join("lock");
    let file = fs::File::create(&path).with_context(|| path.display().to_string())?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(lock),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
            bail!(
                "another meshd runs on the state folder {}; stop it, or give this one another --state-dir",
                dir.display()
            )
        }
        Err((_, errno)) => Err(errno).with_context(|| format!("lock {}", path.display())),
    }
}

fn private_dir(dir: &Path) -> Result<()> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.with_context(|| format!("make the folder {}", dir.display()))
}

/// Where the socket is.
pub fn path(run_dir: &Path) -> PathBuf {
    run_dir.join(SOCKET)
}

/// Listens on the socket; a stale one is replaced. Root and the group [`GROUP`] may use it.
pub fn listen(run_dir: &Path) -> Result<UnixListener> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(run_dir);
    made.with_context(|| format!("make the folder {}", run_dir.display()))?;
    let path = path(run_dir);
    if std::os::unix::net::UnixStream::connect(&path).is_ok() {
        bail!("another meshd answers on {}; give this one another --run-dir", path.display());
    }
    match fs::remove_file(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(e).with_context(|| format!("remove the stale socket {}", path.display()));
        }
        _ => {}
    }
    let listener = UnixListener::bind(&path).with_context(|| format!("listen on {}", path.display()))?;
    protect(&path).with_context(|| format!("protect {}", path.display()))?;
    Ok(listener)
}

/// For root, and for the group that the host's administrator may have made for it.
fn protect(path: &Path) -> Result<()> {
    let group = Group::from_name(GROUP).ok().flatten();
    let mode = match &group {
        Some(group) => {
            nix::unistd::chown(path, None, Some(group.gid))?;
            0o660
        }
        None => {
            info!(group = GROUP, "no such group; the local socket is for root alone");
            0o600
        }
    };
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode))?)
}

/// Serves the socket for as long as the process runs.
pub async fn serve(daemon: Arc<Daemon>, listener: UnixListener) -> Result<()> {
    tonic::transport::Server::builder()
        .layer(traces::local_layer())
        .layer(LocalAccessLayer)
        .add_service(
            LocalServer::new(LocalService::new(daemon.clone())).max_decoding_message_size(LARGEST_BACKUP),
        )
        .add_service(ClusterServer::new(LocalCluster::new(daemon.clone())))
        .add_service(ControlServer::new(LocalControl::new(daemon)))
        .serve_with_incoming(transport::unix_incoming(listener))
        .await
        .context("the local socket")
}
