//! How a cluster begins: new, from a backup, or from what one manager has left of it.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, OnceLock},
};

use anyhow::{Context, Result};
use mesh_agent::{DataPathChoice, one_line};
use mesh_manager::{Backup, Manager, NewCluster, RestoredCluster};
use mesh_types::Role;
use tracing::{info, warn};

use super::{
    Daemon, Member,
    flags::{advertise, data_path, listen_address, node_name},
    manager_options, refuse_member, watch_of,
};
use crate::{address::Family, identity::Renewal, membership::Membership, state_dir};

/// What `init` made.
#[derive(Debug)]
pub struct NewMember {
    /// The node's membership.
    pub membership: Membership,
    /// What workers join with.
    pub worker_token: String,
    /// Where they join.
    pub managers: Vec<SocketAddr>,
}

/// What `init` was asked for.
#[derive(Debug, Default)]
pub struct InitSpec {
    /// This node's name; the host's unless given.
    pub name: String,
    /// Address or interface.
    pub advertise_addr: String,
    /// Address or interface.
    pub data_path_addr: String,
    /// `HOST:PORT` of the managers' API.
    pub listen_addr: String,
    /// Where subnets come from, at most one per family.
    pub default_addr_pools: Vec<String>,
    /// Whether the ingress network has IPv6.
    pub ipv6: bool,
    /// How long certificates are valid, in seconds; the usual time unless set.
    pub cert_expiry_secs: Option<u64>,
}

/// What a cluster is made of.
enum Beginning {
    New(NewCluster),
    Restored(RestoredCluster),
}

impl Daemon {
    /// Makes a cluster with this node as its manager. An error leaves the node as it was.
    pub async fn init(&self, spec: InitSpec) -> Result<NewMember> {
        let mut member = self.member.write().await;
        refuse_member(member.as_ref())?;
        state_dir::refuse_leftovers(&self.config.state_dir)?;
        let (advertise_addr, reached) = advertise("--advertise-addr", &spec.advertise_addr, Family::V4)?;
        let (data_path_addr, data_path) =
            data_path(&spec.data_path_addr, &spec.advertise_addr, advertise_addr)?;
        let listen_addr = listen_address(&spec.listen_addr, advertise_addr)?;
        let pools = spec.default_addr_pools.iter();
        let pools = pools.map(|text| text.parse().with_context(|| format!("--default-addr-pool {text}")));
        let new = NewCluster {
            name: node_name(&spec.name)?,
            data_path_addr,
            pools: pools.collect::<Result<_>>()?,
            ingress_ipv6: spec.ipv6,
            cert_validity_secs: spec.cert_expiry_secs,
        };
        state_dir::begin(&self.config.state_dir)?;
        let made =
            self.make_cluster(Beginning::New(new), (advertise_addr, reached), data_path, listen_addr).await;
        let (made, new) = self.or_wipe(made).await?;
        *member = Some(made);
        Ok(new)
    }

    /// Makes a cluster anew from a backup, with this node as its only manager. An error leaves the node as it was.
    pub async fn restore(&self, spec: InitSpec, backup: Vec<u8>) -> Result<NewMember> {
        let mut member = self.member.write().await;
        refuse_member(member.as_ref())?;
        state_dir::refuse_leftovers(&self.config.state_dir)?;
        let backup = Backup::decode(&backup)?;
        let (advertise_addr, reached) = advertise("--advertise-addr", &spec.advertise_addr, Family::V4)?;
        let (data_path_addr, data_path) =
            data_path(&spec.data_path_addr, &spec.advertise_addr, advertise_addr)?;
        let listen_addr = listen_address(&spec.listen_addr, advertise_addr)?;
        let from = RestoredCluster { state: backup.state, name: node_name(&spec.name)?, data_path_addr };
        state_dir::begin(&self.config.state_dir)?;
        let made = self
            .make_cluster(Beginning::Restored(from), (advertise_addr, reached), data_path, listen_addr)
            .await;
        let (made, new) = self.or_wipe(made).await?;
        *member = Some(made);
        Ok(new)
    }

    /// Makes this manager the only one, after the others were lost. An error leaves it as it was.
    pub async fn force_new_cluster(&self, spec: InitSpec) -> Result<NewMember> {
        let mut guard = self.member.write().await;
        let Some(member) = guard.as_mut() else {
            anyhow::bail!(
                "this node is in no cluster: --force-new-cluster is for a manager that has lost the others"
            );
        };
        let asked = [&spec.advertise_addr, &spec.data_path_addr, &spec.listen_addr, &spec.name];
        if asked.iter().any(|text| !text.is_empty()) || !spec.default_addr_pools.is_empty() || spec.ipv6 {
            anyhow::bail!("--force-new-cluster goes on with the cluster as it is; give no other options");
        }
        let Some(manager) = member.manager.take() else {
            let why = member.manager_fault.clone().unwrap_or_else(|| "it is a worker".to_owned());
            anyhow::bail!("this node runs no manager: {why}");
        };
        manager.shutdown().await;
        let membership = &member.membership;
        let options = || {
            let watch = watch_of(&member.agent);
            let (advertise, listen) = (membership.advertise_addr, membership.listen_addr);
            manager_options(&self.config, advertise, listen, &watch, &self.keys)
        };
        let forced = Manager::force_new_cluster(options()?, member.identity.clone()).await;
        let manager = match forced {
            Ok(manager) => manager,
            Err(error) => {
                // As before, if that is possible; else the next look at the role tries again.
                match Manager::open(options()?, member.identity.clone()).await {
                    Ok(manager) => member.manager = Some(manager),
                    Err(fault) => member.manager_fault = Some(one_line(&fault)),
                }
                return Err(error.into());
            }
        };
        warn!(cluster = %membership.cluster, "this node is the only manager now: made so by an operator");
        let new = NewMember {
            membership: membership.clone(),
            worker_token: manager.join_token(Role::Worker).unwrap_or_default(),
            managers: manager.managers(),
        };
        member.manager = Some(manager);
        Ok(new)
    }

    async fn make_cluster(
        &self,
        beginning: Beginning,
        (advertise, reached): (IpAddr, DataPathChoice),
        data_path: DataPathChoice,
        listen: SocketAddr,
    ) -> Result<(Member, NewMember)> {
        let (name, data_path_addr) = match &beginning {
            Beginning::New(new) => (new.name.clone(), new.data_path_addr),
            Beginning::Restored(from) => (from.name.clone(), from.data_path_addr),
        };
        let cell = Arc::new(OnceLock::new());
        let options = manager_options(&self.config, advertise, listen, &cell, &self.keys)?;
        let manager = match beginning {
            Beginning::New(new) => Manager::init(options, new).await?,
            Beginning::Restored(from) => Manager::restore(options, from).await?,
        };
        let own = manager.identity().current().own();
        let membership = Membership {
            cluster: own.cluster,
            node: own.node,
            name,
            role: Role::Manager,
            advertise_addr: advertise,
            data_path_addr,
            listen_addr: listen,
            managers: manager.managers(),
            data_path,
            advertise: reached,
        };
        let agent = match self.begin(&membership, manager.identity()).await {
            Ok(agent) => agent,
            Err(error) => {
                manager.shutdown().await;
                return Err(error);
            }
        };
        let _ = cell.set(agent.clone());
        info!(cluster = %membership.cluster, node = %membership.node, "cluster made");
        let new = NewMember {
            membership: membership.clone(),
            worker_token: manager.join_token(Role::Worker).unwrap_or_default(),
            managers: manager.managers(),
        };
        let identity = manager.identity().clone();
        let renewal = Renewal::start(identity.clone(), self.keys.clone(), agent.clone());
        Ok((
            Member { membership, agent, manager: Some(manager), manager_fault: None, identity, renewal },
            new,
        ))
    }
}
