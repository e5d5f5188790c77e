//! The tasks as the format version before this one kept them: without owners, ports of their own and kept addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use mesh_types::{
    Generation, Health, HealthNote, LocalEndpointId, Mac, Name, NetworkId, ServiceId, TaskDns, TaskId,
};
use serde::{Deserialize, Serialize};

use super::KeptTasks;
use crate::{Attachment, Drain, LocalTask, NsIdentity, NsRef};

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct TasksBefore {
    pub(super) boot: String,
    pub(super) tasks: Vec<TaskBefore>,
    pub(super) generation: Generation,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct TaskBefore {
    pub(super) id: TaskId,
    pub(super) name: Name,
    pub(super) service: Option<ServiceId>,
    pub(super) aliases: Vec<Name>,
    pub(super) namespace: NsRef,
    pub(super) namespace_id: NsIdentity,
    pub(super) attachments: Vec<AttachmentBefore>,
    pub(super) weight: u16,
    pub(super) drain_timeout_secs: Option<u32>,
    pub(super) drain: Drain,
    pub(super) follows_service: bool,
    pub(super) dns: TaskDns,
    pub(super) health: Health,
    pub(super) health_note: Option<HealthNote>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct AttachmentBefore {
    pub(super) network: NetworkId,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) fixed: Vec<IpAddr>,
    pub(super) mac: Mac,
    pub(super) local_id: LocalEndpointId,
    pub(super) generation: Generation,
    pub(super) egress4: Option<Ipv4Addr>,
    pub(super) egress6: Option<Ipv6Addr>,
    pub(super) link: String,
    pub(super) task_link: String,
    pub(super) ifindex: u32,
    pub(super) aliases: Vec<Name>,
    pub(super) by_service: bool,
}

impl From<TasksBefore> for KeptTasks {
    fn from(kept: TasksBefore) -> Self {
        let tasks = kept.tasks.into_iter().map(LocalTask::from).collect();
        Self { boot: kept.boot, tasks, generation: kept.generation, holds: Vec::new() }
    }
}

impl From<TaskBefore> for LocalTask {
    fn from(task: TaskBefore) -> Self {
        Self {
            id: task.id,
            name: task.name,
            service: task.service,
            aliases: task.aliases,
            namespace: task.namespace,
            namespace_id: task.namespace_id,
            attachments: task.attachments.into_iter().map(Attachment::from).collect(),
            weight: task.weight,
            drain_timeout_secs: task.drain_timeout_secs,
            drain: task.drain,
            follows_service: task.follows_service,
            dns: task.dns,
            health: task.health,
            health_note: task.health_note,
        }
    }
}

impl From<AttachmentBefore> for Attachment {
    fn from(place: AttachmentBefore) -> Self {
        Self {
            network: place.network,
            addresses: place.addresses,
            fixed: place.fixed,
            mac: place.mac,
            local_id: place.local_id,
            generation: place.generation,
            egress4: place.egress4,
            egress6: place.egress6,
            link: place.link,
            task_link: place.task_link,
            ifindex: place.ifindex,
            aliases: place.aliases,
            by_service: place.by_service,
            owner: None,
            host_ports: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kept::Format;

    #[test]
    fn tasks_of_the_version_before_are_read() {
        let place = AttachmentBefore {
            network: NetworkId::from_u128(3),
            addresses: vec![IpAddr::from([10, 10, 3, 2])],
            fixed: vec![],
            mac: Mac([2, 0x42, 10, 10, 3, 2]),
            local_id: LocalEndpointId(4),
            generation: Generation(5),
            egress4: Some(Ipv4Addr::new(169, 254, 64, 4)),
            egress6: None,
            link: "msh00000001".into(),
            task_link: "eth0".into(),
            ifindex: 9,
            aliases: vec![Name::new("a").unwrap()],
            by_service: true,
        };
        let task = TaskBefore {
            id: TaskId::from_u128(1),
            name: Name::new("web.1").unwrap(),
            service: Some(ServiceId::from_u128(2)),
            aliases: vec![],
            namespace: NsRef::Pid(7),
            namespace_id: NsIdentity { dev: 4, ino: 8 },
            attachments: vec![place],
            weight: 3,
            drain_timeout_secs: Some(5),
            drain: Drain::None,
            follows_service: true,
            dns: TaskDns::default(),
            health: Health::None,
            health_note: None,
        };
        let kept = TasksBefore { boot: "b".into(), tasks: vec![task], generation: Generation(6) };
        let bytes = postcard::to_stdvec(&kept).unwrap();
        assert!(postcard::from_bytes::<KeptTasks>(&bytes).is_err(), "it is another format");
        let now = KeptTasks::before(&bytes).unwrap();
        assert_eq!(now, KeptTasks::from(kept));
        let place = &now.tasks[0].attachments[0];
        assert_eq!((place.ifindex, place.by_service, &place.owner), (9, true, &None));
        assert_eq!((now.tasks[0].weight, now.tasks[0].follows_service), (3, true));
    }
}
