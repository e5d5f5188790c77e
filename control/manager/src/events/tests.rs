use std::collections::BTreeMap;

use futures::FutureExt;
use mesh_store::{Command, Kind, NetworkChange, NewNetwork, NewService, ServiceChange};
use mesh_types::{
    Endpoint, EndpointMode, EndpointState, Generation, Health, HealthNote, LocalEndpointId, Mac, NetworkId,
    NodeId, ServiceId, TaskId,
};

use super::{diff::What, *};
use crate::{shared::Checked, testing::state as cluster};

const PROD: NetworkId = NetworkId::from_u128(7);
const WEB: ServiceId = ServiceId::from_u128(8);

const NETWORK: What = What::Object(Kind::Network);
const SERVICE: What = What::Object(Kind::Service);

fn network(id: NetworkId, name: &str) -> Command {
    Command::CreateNetwork(NewNetwork {
        id,
        name: name.parse().unwrap(),
        subnets: vec![("10.9.0.0/24".parse().unwrap(), None)],
        ipv6: false,
        ip_ranges: vec![],
        attachable: true,
        internal: false,
        ingress: false,
        mtu: None,
        labels: BTreeMap::new(),
        now: 0,
        aux_addresses: BTreeMap::new(),
    })
}

fn service() -> Command {
    Command::CreateService(NewService {
        id: WEB,
        name: "web".parse().unwrap(),
        networks: vec![(PROD, vec!["www".parse().unwrap()])],
        endpoint_mode: EndpointMode::Vip,
        ports: vec!["80:80".parse().unwrap()],
        affinity: None,
        prefer_local: false,
        drain_timeout_secs: 30,
        health: None,
        labels: BTreeMap::new(),
        now: 0,
    })
}

fn publish(port: &str) -> Command {
    let change = ServiceChange { add_ports: vec![port.parse().unwrap()], ..ServiceChange::default() };
    Command::UpdateService { service: WEB, change }
}

/// What `commands` do, in one step.
fn step(state: &mut State, commands: impl IntoIterator<Item = Command>) -> Vec<Change> {
    let before = state.clone();
    for command in commands {
        state.apply(command).unwrap();
    }
    diff(&before, state)
}

fn what(changes: &[Change]) -> Vec<(What, Action, &str)> {
    changes.iter().map(|change| (change.kind, change.action, change.name.as_str())).collect()
}

#[test]
fn each_object_that_changes_is_told_once() {
    let mut state = cluster();
    assert!(diff(&State::default(), &state).is_empty(), "a cluster is not news of itself");
    let made = step(&mut state, [network(PROD, "prod"), service(), publish("81:81")]);
    assert_eq!(what(&made), [(NETWORK, Action::Create, "prod"), (SERVICE, Action::Create, "web")]);
    assert_eq!(made[1].attributes["ports"], "80:80/tcp 81:81/tcp");
    assert_eq!(made[1].attributes["aliases"], "prod:www");
    assert_eq!(made[1].version, state.version());

    let labels = NetworkChange { set_labels: [("a".into(), "b".into())].into(), ..NetworkChange::default() };
    let changed = step(&mut state, [Command::UpdateNetwork { network: PROD, change: labels }]);
    assert_eq!(what(&changed), [(NETWORK, Action::Update, "prod")]);
    assert_eq!(changed[0].attributes, BTreeMap::from([("labels", "a=b".to_owned())]));
    let nothing = NetworkChange { remove_labels: vec!["a".into()], ..NetworkChange::default() };
    let changed = step(&mut state, [Command::UpdateNetwork { network: PROD, change: nothing }]);
    assert_eq!(
        changed[0].attributes,
        BTreeMap::from([("labels", String::new())]),
        "what is no more is empty"
    );

    let gone = step(&mut state, [Command::RemoveService(WEB), Command::RemoveNetwork(PROD)]);
    assert_eq!(what(&gone), [(NETWORK, Action::Remove, "prod"), (SERVICE, Action::Remove, "web")]);
    assert!(step(&mut state, [network(PROD, "prod"), Command::RemoveNetwork(PROD)]).is_empty());
    assert!(
        step(
            &mut state,
            [Command::RotateJoinToken {
                role: mesh_types::Role::Worker,
                secret: mesh_store::Sensitive([9; 16]),
            }]
        )
        .is_empty()
    );
}

#[tokio::test]
async fn past_and_coming_events_are_one_stream() {
    let mut state = cluster();
    let (changes, states) = watch::channel(Arc::new(state.clone()));
    let stop = CancellationToken::new();
    let events = Arc::new(Events::new(stop.clone()));
    let following = tokio::spawn(events.clone().follow(states));
    let mut live = events.stream(None);
    let mut apply = |command| {
        state.apply(command).unwrap();
        changes.send_replace(Arc::new(state.clone()));
    };
    apply(network(PROD, "prod"));
    let first = live.next().await.unwrap().unwrap();
    assert_eq!(
        (first.action.as_str(), first.kind.as_str(), first.name.as_str()),
        ("create", "network", "prod")
    );
    apply(service());
    assert_eq!(live.next().await.unwrap().unwrap().name, "web");
    let mut late = events.stream(Some(first.time_millis));
    assert_eq!(late.next().await.unwrap().unwrap(), first);
    assert_eq!(late.next().await.unwrap().unwrap().name, "web");
    apply(publish("81:81"));
    for stream in [&mut live, &mut late] {
        let event = stream.next().await.unwrap().unwrap();
        assert_eq!(
            (event.action.as_str(), event.attributes["ports"].as_str()),
            ("update", "80:80/tcp 81:81/tcp")
        );
    }
    assert!(events.stream(Some(u64::MAX)).next().now_or_never().is_none());
    stop.cancel();
    assert_eq!(live.next().await.unwrap().unwrap_err().code(), tonic::Code::Unavailable);
    assert!(live.next().await.is_none());
    following.await.unwrap();
}

#[test]
fn the_steps_of_the_gossip_key_are_told() {
    let mut state = cluster();
    let after = |state: &State| state.gossip_keys().unwrap().version;
    let fresh = mesh_store::Sensitive([7; 32]);
    let begun = Command::RotateGossipKeys { fresh, after: after(&state) };
    let changes = step(&mut state, [begun]);
    assert_eq!(what(&changes), [(What::Cluster, Action::Update, "gossip-keys")]);
    assert_eq!(changes[0].attributes, BTreeMap::from([("phase", "spreading".to_owned())]));
    let next = Command::StepGossipKeys { after: after(&state), now: 1 };
    assert_eq!(step(&mut state, [next])[0].attributes["phase"], "retiring");
    let noted = Command::GossipKeysInUse { version: after(&state), nodes: [crate::testing::NODE].into() };
    assert!(step(&mut state, [noted]).is_empty());
}

#[tokio::test]
async fn a_reader_that_falls_behind_is_told_so() {
    let events = Events::new(CancellationToken::new());
    let mut slow = events.stream(None);
    let change = |n: u64| Change {
        kind: What::Object(Kind::Node),
        action: Action::Update,
        id: n.to_string(),
        name: "n".to_owned(),
        version: n,
        attributes: BTreeMap::new(),
    };
    events.tell((0..2000).map(change).collect(), 5);
    assert_eq!(slow.next().await.unwrap().unwrap_err().code(), tonic::Code::DataLoss);
    let past: Vec<_> = events.stream(Some(5)).take(REMEMBERED).collect().await;
    assert_eq!(past[0].as_ref().unwrap().version, 2000 - REMEMBERED as u64);
}

#[test]
fn the_health_of_a_task_is_told_when_it_changes() {
    let mut state = cluster();
    step(&mut state, [network(PROD, "prod"), service()]);
    let task = |number: u128, health: Health, why: Option<&str>| {
        let endpoint = Endpoint {
            network: PROD,
            node: NodeId::from_u128(1),
            task: TaskId::from_u128(number),
            name: format!("web.{number}").parse().unwrap(),
            service: Some(WEB),
            addresses: vec![],
            mac: Mac([2, 0, 0, 0, 0, 1]),
            local_id: LocalEndpointId(1),
            generation: Generation(1),
            aliases: vec![],
            state: EndpointState::Ready,
            weight: 1,
            health,
            health_note: why.map(HealthNote::of),
        };
        (endpoint.task, Arc::new(endpoint))
    };
    let before: Checked = [task(1, Health::Healthy, None), task(2, Health::Healthy, None)].into();
    assert!(health_changes(&before, &before, &state).is_empty());
    let sick = task(2, Health::Unhealthy, Some("connection refused"));
    let now: Checked = [task(1, Health::Healthy, None), sick, task(3, Health::Starting, None)].into();
    let told = health_changes(&before, &now, &state);
    assert_eq!(what(&told), [(What::Task, Action::Update, "web.2"), (What::Task, Action::Update, "web.3")]);
    let words = told[0].attributes.iter().map(|(key, value)| format!("{key}={value}"));
    let words: Vec<_> = words.filter(|word| !word.starts_with("node=")).collect();
    assert_eq!(words, ["health=unhealthy", "service=web", "why=connection refused"]);
    // Another reason is no news, and a task that has ended neither.
    let other: Checked = [task(2, Health::Unhealthy, Some("status 500"))].into();
    assert!(health_changes(&now, &other, &state).is_empty());
}
