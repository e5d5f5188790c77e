//! Asking a manager for membership.

use std::{
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    sync::Arc,
    time::SystemTime,
};

use anyhow::{Context, Result, anyhow, bail};
use mesh_agent::{DataPathChoice, one_line};
use mesh_api::{
    parse_id, transport,
    v1::{self, dispatcher_client::DispatcherClient, join_client::JoinClient},
};
use mesh_ca::{CertificateDer, DigestMismatch, Identity, IdentityCell, JoinToken};
use mesh_types::{MANAGER_PORT, Name, Node, Role};

use crate::{
    address::Family,
    daemon::{advertise, any_of, data_path, node_name},
    membership::Membership,
};

/// What `join` was asked for.
#[derive(Debug, Default)]
pub struct JoinSpec {
    /// The token as printed by `init` or `join-token`.
    pub token: String,
    /// `HOST[:PORT]` of managers.
    pub managers: Vec<String>,
    /// This node's name; the host's unless given.
    pub name: String,
    /// Address or interface.
    pub advertise_addr: String,
    /// Address or interface.
    pub data_path_addr: String,
}

/// Gets a certificate from the first manager that answers.
pub async fn join(spec: &JoinSpec) -> Result<(Membership, Identity)> {
    let token: JoinToken = spec.token.trim().parse().context("the join token is not usable")?;
    let name = node_name(&spec.name)?;
    let Some(first) = spec.managers.first() else {
        bail!("name a manager to join, for example 192.168.0.1:{MANAGER_PORT}");
    };
    // Nodes of different families cannot reach each other.
    let family = if resolve(first)?.iter().all(SocketAddr::is_ipv6) { Family::V6 } else { Family::V4 };
    let (advertise_addr, reached) = advertise("--advertise-addr", &spec.advertise_addr, family)?;
    let (data_path_addr, choice) = data_path(&spec.data_path_addr, &spec.advertise_addr, advertise_addr)?;
    let mut failed = Vec::new();
    for manager in &spec.managers {
        let addresses = resolve(manager)?;
        for address in addresses {
            match ask(address, &token, &name, advertise_addr, data_path_addr).await {
                Ok((membership, identity)) => {
                    return Ok((
                        Membership { data_path: choice, advertise: reached, ..membership },
                        identity,
                    ));
                }
                Err(Refusal::Final(error)) => return Err(error),
                Err(Refusal::Unreachable(error)) => failed.push(one_line(error.as_ref())),
            }
        }
    }
    Err(anyhow!("no manager could be reached: {}", failed.join("; ")))
}

/// Whether another manager is worth a try.
enum Refusal {
    Unreachable(anyhow::Error),
    Final(anyhow::Error),
}

async fn ask(
    manager: SocketAddr,
    token: &JoinToken,
    name: &Name,
    advertise_addr: IpAddr,
    data_path_addr: IpAddr,
) -> Result<(Membership, Identity), Refusal> {
    let last = |e: anyhow::Error| Refusal::Final(e);
    let (key, csr) = Identity::request().map_err(|e| last(e.into()))?;
    let tls = mesh_ca::join_client_config(*token.digest()).map_err(|e| last(e.into()))?;
    let connected = transport::connect(manager, mesh_ca::server_name(Role::Manager), tls).await;
    let channel = connected.map_err(|error| match DigestMismatch::find(&error) {
        Some(mismatch) => Refusal::Final(anyhow!(
            "{manager}: {mismatch}; get the current token with `meshctl join-token` on a manager"
        )),
        None if mesh_ca::is_out_of_time(&error) => Refusal::Unreachable(anyhow!(
            "{manager}: by this node's clock the certificate there is not valid; see that both clocks are right"
        )),
        None => Refusal::Unreachable(error.into()),
    })?;
    let (now, formats) = (SystemTime::now().duration_since(SystemTime::UNIX_EPOCH), mesh_manager::formats());
    let request = v1::JoinRequest {
        token: token.to_string(),
        csr,
        name: name.to_string(),
        advertise_addr: advertise_addr.to_string(),
        data_path_addr: data_path_addr.to_string(),
        oldest_format: (*formats.start()).into(),
        newest_format: (*formats.end()).into(),
        now: now.unwrap_or_default().as_secs(),
    };
    let answer = JoinClient::new(channel).join(request).await;
    let answer = answer.map_err(|status| {
        let error = anyhow!("{manager}: {}", status.message());
        match status.code() {
            tonic::Code::Unavailable => Refusal::Unreachable(error),
            _ => Refusal::Final(error),
        }
    })?;
    accept(answer.into_inner(), key).map_err(|e| last(e.context(format!("the answer of {manager}"))))
}

/// Tells the managers that the node, which they took for a member, is none.
pub async fn withdraw(membership: &Membership, identity: Arc<IdentityCell>) -> Result<()> {
    let tls = mesh_ca::client_config(identity)?;
    let manager = *membership.managers.first().context("no manager is known")?;
    let channel = transport::connect(manager, mesh_ca::server_name(Role::Manager), tls).await?;
    DispatcherClient::new(channel)
        .leave(v1::LeaveRequest {})
        .await
        .map_err(|s| anyhow!("{}", s.message().to_owned()))?;
    Ok(())
}

fn accept(answer: v1::JoinResponse, key: mesh_ca::NodeKey) -> Result<(Membership, Identity)> {
    let chain = answer.certificates.into_iter().map(CertificateDer::from).collect();
    let identity = Identity::new(key, chain)?;
    let node = Node::try_from(answer.node.context("it holds no node")?)?;
    let managers: Result<Vec<SocketAddr>, _> = answer.managers.iter().map(|m| m.parse()).collect();
    let membership = Membership {
        cluster: parse_id("cluster_id", &answer.cluster_id)?,
        node: node.id,
        name: node.name,
        role: node.role,
        advertise_addr: node.advertise_addr,
        data_path_addr: node.data_path_addr,
        listen_addr: (any_of(node.advertise_addr), MANAGER_PORT).into(),
        managers: managers.context("its list of managers")?,
        data_path: DataPathChoice::Address(node.data_path_addr),
        advertise: DataPathChoice::Address(node.advertise_addr),
    };
    Ok((membership, identity))
}

fn resolve(manager: &str) -> Result<Vec<SocketAddr>> {
    let bare = manager.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(manager);
    let found = match bare.parse::<IpAddr>() {
        Ok(address) => return Ok(vec![(address, MANAGER_PORT).into()]),
        Err(_) if manager.contains(':') => manager.to_socket_addrs(),
        Err(_) => (manager, MANAGER_PORT).to_socket_addrs(),
    };
    let found: Vec<_> = found.with_context(|| format!("manager address {manager:?}"))?.collect();
    if found.is_empty() {
        bail!("manager address {manager:?} leads nowhere");
    }
    Ok(found)
}
