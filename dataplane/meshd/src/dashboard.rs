//! The dashboard of this node's manager: served from the first `meshctl dashboard` on, until the daemon stops, the node is no
//! manager any more, or `[dashboard]` says otherwise.

mod changes;
mod rates;
mod source;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use mesh_api::v1;
use mesh_ca::IdentityCell;
use mesh_dashboard::{Dashboard, Limits, Options};
use sha2::{Digest, Sha256};
use tonic::Status;

use self::source::ClusterSource;
use crate::{config::DashboardConfig, daemon::Daemon};

/// A dashboard that is served.
pub type Served = tokio::sync::Mutex<Option<Dashboard>>;

/// Serves it, if it is not served yet, and begins a login.
pub async fn open(
    daemon: &Arc<Daemon>,
    request: v1::OpenDashboardRequest,
) -> Result<v1::OpenDashboardResponse, Status> {
    let wanted = match request.listen.as_str() {
        "" => None,
        text => Some(text.parse::<SocketAddr>().map_err(|_| {
            Status::invalid_argument(format!("{text:?} is not ADDRESS:PORT, for example 10.0.0.5:7380"))
        })?),
    };
    // Held to the end: who leaves or stops being a manager waits for it, and then ends what is served.
    let member = daemon.member().await?;
    member.manager()?;
    let identity = member.identity.clone();
    let mut served = daemon.dashboard.lock().await;
    let config = daemon.followed().dashboard;
    let usual = config.listen().ok_or_else(|| {
        Status::failed_precondition(
            "this node serves no dashboard: `listen` of [dashboard] in its configuration is empty",
        )
    })?;
    let there = served.as_ref().map(Dashboard::addr);
    let fits = |there: SocketAddr| {
        wanted.is_none_or(|wanted| wanted == there || (wanted.port() == 0 && wanted.ip() == there.ip()))
    };
    if !there.is_some_and(fits) {
        let listen = wanted.unwrap_or(usual);
        let start = async || {
            let source = Arc::new(ClusterSource::new(Arc::downgrade(daemon)));
            Ok::<_, Status>(Dashboard::start(options(listen, limits(&config), &identity)?, source).await)
        };
        let mut started = start().await?;
        // All addresses of this node are one that is served already, and more.
        if started.is_err() && there.is_some_and(|there| there.port() == listen.port()) {
            end(served.take()).await;
            started = start().await?;
        }
        let dashboard = started.map_err(|error| {
            let why = std::error::Error::source(&error).map(|why| format!(": {why}")).unwrap_or_default();
            Status::failed_precondition(format!("{error}{why}"))
        })?;
        end(served.replace(dashboard)).await;
    }
    let Some(dashboard) = served.as_ref() else { return Err(Status::internal("no dashboard")) };
    let (address, limits) = (dashboard.addr(), dashboard.limits());
    Ok(v1::OpenDashboardResponse {
        address: address.to_string(),
        url: format!("https://{}/#login={}", reachable(address), dashboard.login(request.write)),
        fingerprint: fingerprint(&identity)?,
        login_secs: u32::try_from(limits.login.as_secs()).unwrap_or(u32::MAX),
        idle_secs: u32::try_from(limits.idle.as_secs()).unwrap_or(u32::MAX),
    })
}

/// Ends it, and all of its sessions.
pub async fn close(served: &Served) {
    end(served.lock().await.take()).await;
}

async fn end(dashboard: Option<Dashboard>) {
    if let Some(dashboard) = dashboard {
        dashboard.end().await;
    }
}

/// Follows a changed configuration. Sessions that are there go by the new bounds; with another address they end.
pub async fn follow(served: &Served, before: &DashboardConfig, now: &DashboardConfig) {
    let mut served = served.lock().await;
    if before.listen != now.listen {
        end(served.take()).await;
    }
    if let Some(dashboard) = served.as_ref() {
        dashboard.set_limits(limits(now));
    }
}

fn limits(config: &DashboardConfig) -> Limits {
    let seconds = |seconds: u32| Duration::from_secs(seconds.into());
    Limits { idle: seconds(config.idle), whole: seconds(config.session), ..Limits::default() }
}

fn options(listen: SocketAddr, limits: Limits, identity: &Arc<IdentityCell>) -> Result<Options, Status> {
    let tls = mesh_ca::page_config(identity.clone()).map_err(|error| Status::internal(error.to_string()))?;
    let name = identity.current().own().node.to_string().chars().take(12).collect();
    Ok(Options { listen, tls, name, limits })
}

/// What to type into a browser: of all addresses one that is there.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        ip if !ip.is_unspecified() => address,
        std::net::IpAddr::V4(_) => SocketAddr::new([127, 0, 0, 1].into(), address.port()),
        std::net::IpAddr::V6(_) => SocketAddr::new(std::net::Ipv6Addr::LOCALHOST.into(), address.port()),
    }
}

/// SHA-256 of the certificate that is shown, as browsers write it.
fn fingerprint(identity: &IdentityCell) -> Result<String, Status> {
    let current = identity.current();
    let shown = current.chain().first().ok_or_else(|| Status::internal("this node has no certificate"))?;
    let digest = Sha256::digest(shown.as_ref());
    Ok(digest.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_addresses_are_reached_by_this_machine_s() {
        let url = |text: &str| reachable(text.parse().unwrap()).to_string();
        assert_eq!(url("0.0.0.0:1"), "127.0.0.1:1");
        assert_eq!(url("[::]:1"), "[::1]:1");
        assert_eq!(url("10.0.0.5:7380"), "10.0.0.5:7380");
    }
}
