//! STATUS: whether an ADD would be served.

use mesh_api::v1::{GetViewRequest, StatusRequest};
use mesh_types::ClusterView;

use crate::{
    config::Config,
    daemon::{Daemon, Refusal, answer},
    error::{CniError, Code},
};

/// Asks meshd, without waiting for one that is away: the runtime asks again.
pub async fn status(config: &Config) -> Result<(), CniError> {
    let what = format!("network {} is not available", config.network);
    let unavailable = |details: String| CniError::new(Code::NotAvailable, &what, details);
    let refused = |refusal: Refusal| unavailable(refusal.told(String::new()).details);
    let daemon = Daemon::connect_once(&config.socket).await.map_err(refused)?;
    let status = answer(daemon.local().status(StatusRequest {})).await.map_err(refused)?;
    if status.state == "inactive" {
        let next = "make a cluster with `meshctl init`, or join one with `meshctl join`";
        return Err(unavailable(format!("this node is in no cluster: {next}")));
    }
    let view = answer(daemon.local().get_view(GetViewRequest {})).await.map_err(refused)?;
    let view = view.view.map(ClusterView::try_from).and_then(Result::ok);
    let Some(view) = view else { return Err(unavailable("meshd's answer makes no sense".to_owned())) };
    if let Err(error) = view.network(&config.network) {
        return Err(refused(Refusal::Refused(tonic::Status::not_found(error.to_string()))));
    }
    match &config.service {
        Some(service) => match view.service(service) {
            Ok(_) => Ok(()),
            Err(error) => Err(refused(Refusal::Refused(tonic::Status::not_found(error.to_string())))),
        },
        None => Ok(()),
    }
}
