//! Ports of a service that have to be open on every node before its container starts.

use mesh_api::v1::{self, GetViewRequest, PublishRequest};
use mesh_types::{ClusterView, PortConfig};

use crate::{
    daemon::{Daemon, Refusal, answer},
    error::{CniError, Code},
};

/// Opens those of `ports` that are not open for `service` yet. They stay open when the container ends: they are the
/// service's.
pub async fn open(daemon: &Daemon, service: &str, ports: &[PortConfig]) -> Result<(), CniError> {
    let list = |ports: &[PortConfig]| ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let what = format!("cannot publish {} of service {service}", list(ports));
    let missing = missing(daemon, service, ports).await.map_err(|refusal| refusal.told(&what))?;
    if missing.is_empty() {
        return Ok(());
    }
    let wire: Vec<v1::Port> = missing.iter().map(|port| (*port).into()).collect();
    let request = PublishRequest { service: service.to_owned(), ports: wire, expected_version: None };
    let Err(refusal) = answer(daemon.control().publish(request)).await else { return Ok(()) };
    // Another container of the service may have been quicker.
    if self::missing(daemon, service, ports).await.is_ok_and(|missing| missing.is_empty()) {
        return Ok(());
    }
    let told = refusal.told(what);
    Err(match told.code {
        Code::Refused => CniError {
            details: format!(
                "{}; open it once, on a manager, with `meshctl publish {} {service}`",
                told.details,
                list(&missing)
            ),
            ..told
        },
        _ => told,
    })
}

/// Those that are not open for the service.
async fn missing(daemon: &Daemon, service: &str, ports: &[PortConfig]) -> Result<Vec<PortConfig>, Refusal> {
    let view = answer(daemon.local().get_view(GetViewRequest {})).await?;
    let view = view.view.map(ClusterView::try_from).and_then(Result::ok);
    let Some(view) = view else {
        return Err(Refusal::Refused(tonic::Status::internal("meshd's answer makes no sense")));
    };
    let service = view.service(service);
    let service = service.map_err(|error| Refusal::Refused(tonic::Status::not_found(error.to_string())))?;
    // The way of replies does not matter to who is reached.
    let is_open = |port: &PortConfig| {
        service.ports.iter().any(|open| PortConfig { return_mode: port.return_mode, ..*open } == *port)
    };
    Ok(ports.iter().filter(|port| !is_open(port)).copied().collect())
}
