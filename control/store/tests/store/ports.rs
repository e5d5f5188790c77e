//! Published ports: who has which, where, and what a service may change.

use crate::common::*;
use mesh_store::{Command, ServiceChange, State};
use mesh_types::{Affinity, EndpointMode, PortConfig, Service, ServiceId};

fn service(state: &mut State, id: u128, text: &str, ports: &[&str]) -> Service {
    create_service(state, new_service(id, text, &[], ports)).unwrap()
}

fn ports_of(state: &State, service: ServiceId) -> Vec<String> {
    state.service(service).unwrap().ports.iter().map(ToString::to_string).collect()
}

#[test]
fn ports_have_one_owner() {
    let mut state = cluster(1);
    let web = service(&mut state, 1, "web", &["80:80", "80:53/udp", "8080"]);
    let published: Vec<u16> = web.ports.iter().map(|p| p.published).collect();
    assert_eq!(published, [80, 80, 30_000]);
    let db = service(&mut state, 2, "db", &[]);
    let mut say =
        |port: &str, parts: &[&str]| assert_says(&refused(&mut state, change(db.id, &[], &[port])), parts);
    say("80:81", &["80/tcp", "service web"]);
    say("2377:80", &["2377/tcp", "managers"]);
    say("7946:80/udp", &["7946/udp", "gossip"]);
    say("4789:80/udp", &["4789/udp", "VXLAN"]);
    let twice = Command::CreateService(new_service(3, "x", &[], &["90:1", "90:2"]));
    assert_says(&refused(&mut state, twice), &["90/tcp", "twice", "90:1/tcp"]);
    let zero = PortConfig { target: 0, ..web.ports[0] };
    let zero = ServiceChange { add_ports: vec![zero], ..ServiceChange::default() };
    let text = refused(&mut state, Command::UpdateService { service: db.id, change: zero });
    assert_says(&text, &["port 0"]);

    assert_eq!(publish(&mut state, &db, "5432").unwrap().published, 30_001);
    let text = refused(&mut state, change(web.id, &["81"], &[]));
    assert_says(&text, &["service web", "81/tcp", "80:80/tcp"]);
    state.apply(change(web.id, &["80"], &[])).unwrap();
    assert_eq!(state.service(web.id).unwrap().ports.len(), 2);
    publish(&mut state, &db, "80:81").unwrap();
    state.apply(Command::RemoveService(db.id)).unwrap();
    publish(&mut state, &web, "80:80").unwrap();
}

#[test]
fn places_keep_ports_apart() {
    let mut state = cluster(1);
    let web = service(&mut state, 1, "web", &["10.0.0.5:80:80", "eth0:81:80", "82:82,mode=host"]);
    let db = service(&mut state, 2, "db", &["10.0.0.6:80:80", "eth1:81:80", "10.0.0.5:81:80"]);
    let mut say =
        |port: &str, parts: &[&str]| assert_says(&refused(&mut state, change(db.id, &[], &[port])), parts);
    say("10.0.0.5:80:9", &["port 10.0.0.5:80/tcp is published by service web", "another port, address"]);
    say("eth0:81:9", &["eth0:81/tcp", "service web"]);
    say("82:9", &["82/tcp", "service web in mode host", "another port"]);
    say("10.0.0.7:82:9,mode=host", &["10.0.0.7:82/tcp", "service web on all addresses"]);
    let text = refused(&mut state, change(web.id, &[], &["81:9"]));
    assert!(text.contains("eth") || text.contains("10.0.0.5"), "{text}");
    state.apply(change(db.id, &["10.0.0.6:80"], &["[fd00::5]:80:80"])).unwrap();
    assert_eq!(ports_of(&state, db.id), ["eth1:81:80/tcp", "10.0.0.5:81:80/tcp", "[fd00::5]:80:80/tcp"]);
}

#[test]
fn options_that_cannot_be() {
    let mut state = cluster(1);
    let web = service(&mut state, 1, "web", &["7/sctp", "80:80,return=direct"]);
    assert_eq!(ports_of(&state, web.id), ["7:7/sctp", "80:80/tcp,return=direct"]);
    let mut say =
        |port: &str, parts: &[&str]| assert_says(&refused(&mut state, change(web.id, &[], &[port])), parts);
    say("8:9/sctp", &["sctp port 8", "9:9/sctp"]);
    say("90:90,mode=host,return=direct", &["90:90/tcp", "mode host", "return=direct"]);
    let mut new = new_service(2, "rr", &[], &["91:91"]);
    new.endpoint_mode = EndpointMode::Dnsrr;
    let text = refused(&mut state, Command::CreateService(new.clone()));
    assert_says(&text, &["service rr", "mode=host"]);
    new.ports = vec!["91:91,mode=host".parse().unwrap()];
    new.affinity = Some(Affinity { timeout_secs: 3 });
    let text = refused(&mut state, Command::CreateService(new.clone()));
    assert_says(&text, &["service rr", "--affinity", "--endpoint-mode vip"]);
    new.affinity = None;
    create_service(&mut state, new).unwrap();
}

#[test]
fn a_port_is_changed_by_closing_it_first() {
    let mut state = cluster(1);
    let web = service(&mut state, 1, "web", &["80:80"]);
    let text = refused(&mut state, change(web.id, &[], &["80:80,mode=host"]));
    assert_says(&text, &["80:80/tcp already", "meshctl unpublish 80/tcp web", "--publish-rm 80/tcp"]);
    state.apply(change(web.id, &["80"], &["80:80,mode=host"])).unwrap();
    assert_eq!(ports_of(&state, web.id), ["80:80/tcp,mode=host"]);
}

#[test]
fn filters_close_all_that_fit() {
    let mut state = cluster(1);
    let ports = ["80:80", "81:80", "82:80", "82:80/udp", "10.0.0.5:90:90", "eth0:90:90"];
    let web = service(&mut state, 1, "web", &ports);
    state.apply(change(web.id, &["80-82", "81"], &[])).unwrap();
    assert_eq!(ports_of(&state, web.id), ["82:80/udp", "10.0.0.5:90:90/tcp", "eth0:90:90/tcp"]);
    assert_says(&refused(&mut state, change(web.id, &["82/udp", "83"], &[])), &["83/tcp", "82:80/udp"]);
    assert_says(&refused(&mut state, change(web.id, &["*:90"], &[])), &["*:90/tcp"]);
    state.apply(change(web.id, &["90"], &[])).unwrap();
    assert_eq!(ports_of(&state, web.id), ["82:80/udp"]);
}

#[test]
fn automatic_ports_avoid_those_of_the_same_request() {
    let mut state = cluster(1);
    let ports = ["8080", "30000:1", "8081", "8082/udp", "10.0.0.5:30001:1", "eth0::8083"];
    let web = service(&mut state, 1, "web", &ports);
    let published: Vec<u16> = web.ports.iter().map(|p| p.published).collect();
    assert_eq!(published, [30_002, 30_000, 30_003, 30_000, 30_001, 30_004]);
    let range = PortConfig::parse_all("9000-9002").unwrap();
    let range = ServiceChange { add_ports: range, ..ServiceChange::default() };
    state.apply(Command::UpdateService { service: web.id, change: range }).unwrap();
    assert_eq!(ports_of(&state, web.id)[6..], ["30005:9000/tcp", "30006:9001/tcp", "30007:9002/tcp"]);
}

#[test]
fn a_service_changes() {
    let mut state = cluster(1);
    let web = service(&mut state, 1, "web", &["80:80"]);
    let change = ServiceChange {
        affinity: Some(Some(Affinity { timeout_secs: 60 })),
        prefer_local: Some(true),
        drain_timeout_secs: Some(5),
        set_labels: [("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())].into(),
        ..ServiceChange::default()
    };
    let update = |change| Command::UpdateService { service: web.id, change };
    state.apply(update(change)).unwrap();
    let change = ServiceChange { remove_labels: vec!["a".into()], ..ServiceChange::default() };
    state.apply(update(change)).unwrap();
    let now = state.service(web.id).unwrap().clone();
    let labels = [("b".to_owned(), "2".to_owned())].into();
    let affinity = Some(Affinity { timeout_secs: 60 });
    assert_eq!(
        now,
        Service {
            affinity,
            prefer_local: true,
            drain_timeout_secs: 5,
            labels,
            version: now.version,
            ..web.clone()
        }
    );
    let version = state.version();
    state.apply(update(ServiceChange::default())).unwrap();
    assert_eq!(state.version(), version, "nothing changed");
    state.apply(update(ServiceChange { affinity: Some(None), ..ServiceChange::default() })).unwrap();
    assert_eq!(state.service(web.id).unwrap().affinity, None);
}
