//! Ports of this node that lead to one task of it.

use super::*;

fn with_ports(mut task: LocalTask, ports: &[&str]) -> LocalTask {
    task.attachments[0].host_ports = ports.iter().map(|p| p.parse().unwrap()).collect();
    task
}

fn findings(planned: &Planned) -> Vec<String> {
    planned.host_findings.iter().map(ToString::to_string).collect()
}

#[test]
fn they_lead_to_their_task_alone_and_go_with_it() {
    let mut world = World::new();
    let task = with_ports(task(7, None, PROD, &["10.10.3.7"]), &["9080:80", "192.168.7.1:53:53/udp"]);
    world.runs([task.clone()]);
    let planned = world.plan();
    let entry = planned.published(PublishedOn::AnyV4, 9080);
    assert_eq!(behind(entry).0, [7]);
    assert_eq!(entry.unwrap().target_port, Some(80));
    let udp = Frontend::Published {
        on: PublishedOn::Address(ip("192.168.7.1")),
        port: 53,
        protocol: Protocol::Udp,
    };
    assert_eq!(behind(planned.entry(udp)).0, [7]);
    assert!(planned.published(PublishedOn::AnyV6, 9080).is_none(), "it has no IPv6");
    assert!(planned.desired.local[&LocalEndpointId(7)].served, "flows to it are looked for");
    assert_eq!(planned.announcements.len(), 1, "nobody else is told");
    world.runs([LocalTask { drain: DRAINING, ..task.clone() }]);
    assert_eq!(behind(world.plan().published(PublishedOn::AnyV4, 9080)).1, [7]);
    world.runs([LocalTask { drain: DRAINED, ..task }]);
    assert!(world.plan().published(PublishedOn::AnyV4, 9080).is_none());
    world.runs([]);
    assert!(
        world.plan().desired.services.values().all(|s| s
            .frontends
            .keys()
            .all(|f| matches!(f, Frontend::Vip { .. }))
            || !s.frontends.contains_key(&udp))
    );
}

#[test]
fn they_give_way_to_published_ports_and_to_earlier_tasks() {
    let mut world = World::new();
    world.web().ports = vec!["80:80".parse().unwrap(), "eth0:90:90".parse().unwrap()];
    let one = with_ports(
        task(1, None, PROD, &["10.10.3.1"]),
        &["80:8000", "192.168.7.1:90:1", "9080:80", "192.168.7.9:70:70"],
    );
    let two = with_ports(task(2, None, PROD, &["10.10.3.2"]), &["9080:80", "8081:80"]);
    world.runs([one, two]);
    let planned = world.plan();
    assert_eq!(planned.published(PublishedOn::AnyV4, 80).unwrap().target_port, Some(80));
    assert_eq!(behind(planned.published(PublishedOn::AnyV4, 9080)).0, [1]);
    assert_eq!(behind(planned.published(PublishedOn::AnyV4, 8081)).0, [2]);
    assert_eq!(
        findings(&planned),
        [
            "port 80/tcp of this node does not lead to task task1: service web has it",
            "port 192.168.7.1:90/tcp of this node does not lead to task task1: service web has it",
            "port 9080/tcp of this node does not lead to task task2: task task1 has it",
        ]
    );
    world.web().ports.clear();
    let planned = world.plan();
    assert_eq!(behind(planned.published(PublishedOn::AnyV4, 80)).0, [1], "it was given back");
    assert_eq!(findings(&planned).len(), 1);
}

#[test]
fn they_lead_by_the_network_that_replies_leave_by() {
    let mut world = World::new();
    let mut task = task(3, None, PROD, &["10.10.3.3"]);
    let other = Attachment { network: TEST, local_id: LocalEndpointId(4), ..task.attachments[0].clone() };
    task.attachments.push(other);
    task.attachments[1].host_ports = vec!["9080:80".parse().unwrap()];
    world.runs([task.clone()]);
    assert_eq!(behind(world.plan().published(PublishedOn::AnyV4, 9080)).0, [3]);
    world.network(PROD).internal = true;
    world.runs([task]);
    assert_eq!(behind(world.plan().published(PublishedOn::AnyV4, 9080)).0, [4]);
}
