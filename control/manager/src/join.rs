//! How a node becomes a member.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use mesh_api::{
    transport::peer_info,
    v1::{self, join_server},
};
use mesh_ca::{JoinToken, RootCa};
use mesh_store::{Command, OLDEST_FORMAT, Response as Answer, Secrets};
use mesh_types::{Availability, Name, Node, NodeId, Role};
use tonic::{Request, Response, Status};
use tracing::{info, warn};

use crate::{
    identity::{decided, issuing_ca, validity},
    rate::FailedJoins,
    shared::{Shared, unexpected, unix_now},
    status::invalid,
    versions,
};

/// The service behind [`crate::Manager`]'s listener.
pub(crate) struct Join {
    pub shared: Arc<Shared>,
    pub failed: Mutex<FailedJoins>,
}

#[tonic::async_trait]
impl join_server::Join for Join {
    async fn join(&self, request: Request<v1::JoinRequest>) -> Result<Response<v1::JoinResponse>, Status> {
        let peer = peer_info(&request).map(|peer| peer.addr.ip());
        let peer = peer.ok_or_else(|| Status::internal("the connection has no address"))?;
        let request = request.into_inner();
        self.refuse_guessers(peer)?;
        // A token or a root that was replaced on other managers counts no more here either.
        let state = decided(&self.shared).await?;
        let secrets =
            state.secrets().ok_or_else(|| Status::unavailable("this manager has no cluster yet"))?;
        let ca = issuing_ca(&state)?;

        let role = self.admit(peer, &request.token, &ca, secrets)?;
        // All that speaks against it is said before anything is made.
        check_formats(&request, role, state.format())?;
        check_clock(&request, unix_now(), validity(&state))?;
        let node = asked_node(&request, role)?;
        // Made before the node is a member, and handed out only if it becomes one.
        let chain = ca
            .issue(&request.csr, node.id, role, SystemTime::now(), validity(&state))
            .map_err(|e| invalid("csr", e))?;
        let node = match self.shared.propose(Command::AddNode(node)).await? {
            Answer::Node(node) => node,
            other => return Err(unexpected(&other)),
        };
        info!(node = %node.id, name = %node.name, role = %node.role, %peer, "node joined");
        Ok(Response::new(v1::JoinResponse {
            cluster_id: ca.cluster().to_string(),
            node: Some((&node).into()),
            certificates: chain.iter().map(|cert| cert.to_vec()).collect(),
            managers: self.shared.manager_list(&self.shared.state()),
        }))
    }
}

impl Join {
    fn refuse_guessers(&self, peer: IpAddr) -> Result<(), Status> {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(wait) = failed.wait(peer, Instant::now()) else { return Ok(()) };
        let seconds = wait.as_secs() + 1;
        Err(Status::resource_exhausted(format!(
            "too many failed joins from {peer}; try again in {seconds} s"
        )))
    }

    /// The role that the token gives.
    fn admit(&self, peer: IpAddr, token: &str, ca: &RootCa, secrets: &Secrets) -> Result<Role, Status> {
        // Again: others may have guessed since.
        self.refuse_guessers(peer)?;
        let role = role_of(token, ca, secrets);
        if let Err(status) = &role {
            warn!(%peer, reason = status.message(), "join refused");
            self.failed.lock().unwrap_or_else(PoisonError::into_inner).failed(peer, Instant::now());
        }
        role
    }
}

fn role_of(token: &str, ca: &RootCa, secrets: &Secrets) -> Result<Role, Status> {
    let token: JoinToken = token.parse().map_err(|e| invalid("token", e))?;
    if !ca.digests().any(|digest| digest == *token.digest()) {
        return Err(Status::permission_denied("the join token is of another cluster: its CA digest differs"));
    }
    // Both are compared always, so that the time tells nothing.
    let worker = JoinToken::secrets_match(token.secret(), secrets.token(Role::Worker));
    let manager = JoinToken::secrets_match(token.secret(), secrets.token(Role::Manager));
    match (worker, manager) {
        (true, _) => Ok(Role::Worker),
        (_, true) => Ok(Role::Manager),
        _ => Err(Status::permission_denied(
            "the join token is not valid (any more); `meshctl join-token worker` on a manager prints the valid one",
        )),
    }
}

/// Refuses a manager that could not follow the others. One that does not say what it reads is of the version before.
fn check_formats(request: &v1::JoinRequest, role: Role, agreed: u8) -> Result<(), Status> {
    if role != Role::Manager {
        return Ok(());
    }
    let reads = match (request.oldest_format, request.newest_format) {
        (_, 0) => 0..=u32::from(OLDEST_FORMAT),
        (oldest, newest) => oldest..=newest,
    };
    versions::check("this node", reads, agreed, "join again")
}

/// Refuses a node that would not find its certificate valid.
fn check_clock(request: &v1::JoinRequest, now: u64, validity: Duration) -> Result<(), Status> {
    if request.now == 0 || request.now.abs_diff(now) < validity.as_secs() {
        return Ok(());
    }
    let (days, is) =
        (request.now.abs_diff(now) / 86_400, if request.now > now { "ahead of" } else { "behind" });
    Err(Status::failed_precondition(format!(
        "this node's clock is {days} days {is} the manager's, more than certificates last; see that both are right and join again"
    )))
}

fn asked_node(request: &v1::JoinRequest, role: Role) -> Result<Node, Status> {
    let advertise_addr = address("advertise_addr", &request.advertise_addr)?;
    let data_path_addr = match request.data_path_addr.as_str() {
        "" => advertise_addr,
        text => address("data_path_addr", text)?,
    };
    Ok(Node {
        id: NodeId::random(),
        name: Name::new(request.name.clone()).map_err(|e| invalid("name", e))?,
        role,
        advertise_addr,
        data_path_addr,
        availability: Availability::Active,
        labels: Default::default(),
        joined_at: unix_now(),
        version: 0,
    })
}

fn address(field: &str, text: &str) -> Result<IpAddr, Status> {
    let address: IpAddr =
        text.parse().map_err(|_| invalid(field, format!("{text:?} is not an IP address")))?;
    if address.is_unspecified() || address.is_multicast() {
        return Err(invalid(field, format!("other nodes cannot reach {address}")));
    }
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_has_to_read_what_the_managers_agreed_on() {
        let asks = |oldest_format, newest_format| v1::JoinRequest {
            oldest_format,
            newest_format,
            ..Default::default()
        };
        let says = |request: &v1::JoinRequest, agreed| {
            check_formats(request, Role::Manager, agreed).map_err(|status| status.message().to_owned())
        };
        let newest = OLDEST_FORMAT + 1;
        for agreed in [OLDEST_FORMAT, newest] {
            says(&asks(OLDEST_FORMAT.into(), newest.into()), agreed).unwrap();
        }
        says(&asks(0, 0), OLDEST_FORMAT).unwrap();
        assert!(says(&asks(0, 0), newest).unwrap_err().contains("an older meshd"), "it does not say");
        assert!(says(&asks(3, OLDEST_FORMAT.into()), newest).unwrap_err().contains("join again"));
        assert!(says(&asks(newest.into(), 9), OLDEST_FORMAT).unwrap_err().contains("a newer meshd"));
        check_formats(&asks(3, OLDEST_FORMAT.into()), Role::Worker, newest).unwrap();
    }

    #[test]
    fn a_clock_that_is_off_by_more_than_certificates_last_is_told() {
        let (day, now) = (86_400, 20_000 * 86_400);
        let says = |request_now| {
            let request = v1::JoinRequest { now: request_now, ..Default::default() };
            check_clock(&request, now, Duration::from_secs(90 * day))
                .map_err(|status| status.message().to_owned())
        };
        for fine in [0, now, now - 89 * day, now + 89 * day] {
            says(fine).unwrap();
        }
        assert!(says(now + 91 * day).unwrap_err().contains("91 days ahead of"));
        assert!(says(now - 400 * day).unwrap_err().contains("400 days behind"));
    }
}
