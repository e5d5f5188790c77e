//! DEL: the task leaves the network, and ends with its last one.

use mesh_api::v1::DetachRequest;

use crate::{
    config::Config,
    daemon::{Daemon, Refusal, answer},
    environment::Attachment,
    error::CniError,
};

/// Detaches it. What is not there is no error; a daemon that is away is one, since nobody else would know that the
/// container's address is free.
pub async fn del(attachment: &Attachment, config: &Config) -> Result<(), CniError> {
    let owner = attachment.owner(&config.name)?;
    let what = format!("cannot detach container {} from network {}", attachment.container, config.network);
    let daemon = Daemon::connect(&config.socket).await.map_err(|refusal| refusal.told(&what))?;
    detach(&daemon, owner.into()).await.map_err(|refusal| refusal.told(what))
}

/// Takes `owner`'s task from its network.
pub async fn detach(daemon: &Daemon, owner: String) -> Result<(), Refusal> {
    let request = DetachRequest { owner, ..DetachRequest::default() };
    match answer(daemon.local().detach(request)).await {
        Ok(_) => Ok(()),
        Err(Refusal::Refused(status)) if status.code() == tonic::Code::NotFound => Ok(()),
        // Its tasks went when the node left the cluster.
        Err(Refusal::Refused(_)) if daemon.is_inactive().await => Ok(()),
        Err(refusal) => Err(refusal),
    }
}
