//! How far the nodes of the cluster follow a change: each manager knows of those in session with it, so all are asked.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures::future::join_all;
use mesh_api::{
    transport,
    v1::{self, ProgressRequest, ProgressResponse, control_client::ControlClient, control_server::Control},
};
use mesh_ca::IdentityCell;
use mesh_manager::Manager;
use mesh_types::Role;
use tokio::time::timeout;
use tonic::{Request, Status};
use tracing::debug;

/// How long another manager may take. One that does not answer counts as one that knows nothing.
const ANSWER: Duration = Duration::from_secs(2);

/// As all managers have it together.
pub async fn of_all(manager: &Manager, request: ProgressRequest) -> Result<ProgressResponse, Status> {
    let mut all = manager.control().get_progress(Request::new(request)).await?.into_inner();
    if all.nodes.iter().all(|node| node.programmed) {
        return Ok(all);
    }
    let others = manager.managers().into_iter().skip(1);
    let answers = others.map(|address| async move {
        match timeout(ANSWER, ask(manager.identity().clone(), address, request)).await {
            Ok(Ok(answer)) => Some(answer),
            Ok(Err(error)) => {
                debug!(%address, %error, "ask a manager for progress");
                None
            }
            Err(_) => None,
        }
    });
    for answer in join_all(answers).await.into_iter().flatten() {
        merge(&mut all, &answer);
    }
    Ok(all)
}

/// What one manager knows, the others need not.
fn merge(all: &mut ProgressResponse, answer: &ProgressResponse) {
    for node in &mut all.nodes {
        let same = answer.nodes.iter().find(|other| other.node_id == node.node_id);
        node.programmed |= same.is_some_and(|other| other.programmed);
    }
}

async fn ask(
    identity: Arc<IdentityCell>,
    address: SocketAddr,
    request: ProgressRequest,
) -> anyhow::Result<v1::ProgressResponse> {
    let tls = mesh_ca::client_config(identity)?;
    let name = mesh_ca::server_name(Role::Manager);
    let channel = transport::connect(address, name, tls).await?;
    Ok(ControlClient::new(channel).get_progress(request).await?.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_programmed_if_one_manager_says_so() {
        let node = |id: &str, programmed| v1::NodeProgress {
            node_id: id.to_owned(),
            programmed,
            ..v1::NodeProgress::default()
        };
        let mut all = ProgressResponse { nodes: vec![node("a", true), node("b", false), node("c", false)] };
        merge(
            &mut all,
            &ProgressResponse { nodes: vec![node("a", false), node("c", true), node("d", true)] },
        );
        let programmed: Vec<_> = all.nodes.iter().map(|node| node.programmed).collect();
        assert_eq!(programmed, [true, false, true]);
    }
}
