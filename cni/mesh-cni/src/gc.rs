//! GC: tasks of a CNI network whose containers the runtime knows no more.

use mesh_api::v1::ListTasksRequest;

use crate::{
    config::Config,
    daemon::{Daemon, answer},
    del::detach,
    environment::owners_of,
    error::{CniError, Code},
};

/// Detaches what is not in the runtime's list; goes on past errors and tells them.
pub async fn gc(config: &Config) -> Result<(), CniError> {
    let Some(valid) = &config.valid_attachments else {
        // None at all would be a list without entries.
        let missing = "\"cni.dev/valid-attachments\" is missing: the attachments that are still there";
        return Err(CniError::config(missing));
    };
    let what = format!("cannot remove stale containers of network {}", config.network);
    let daemon = Daemon::connect(&config.socket).await.map_err(|refusal| refusal.told(&what))?;
    let tasks = match answer(daemon.local().list_tasks(ListTasksRequest {})).await {
        Ok(tasks) => tasks.local,
        // Without a cluster there are no tasks.
        Err(_) if daemon.is_inactive().await => return Ok(()),
        Err(refusal) => return Err(refusal.told(what)),
    };
    let ours = owners_of(&config.name);
    let is_valid = |rest: &str| {
        rest.rsplit_once('/').is_some_and(|(container, interface)| {
            valid.iter().any(|(id, name)| (id.as_str(), name.as_str()) == (container, interface))
        })
    };
    let owners = tasks.into_iter().flat_map(|task| task.owners);
    let mut problems = Vec::new();
    for owner in owners.filter(|owner| owner.strip_prefix(&ours).is_some_and(|rest| !is_valid(rest))) {
        if let Err(refusal) = detach(&daemon, owner.clone()).await {
            problems.push(format!("{owner}: {}", refusal.told(String::new()).details));
        }
    }
    match problems.is_empty() {
        true => Ok(()),
        false => Err(CniError::new(Code::Failed, what, problems.join("; "))),
    }
}
