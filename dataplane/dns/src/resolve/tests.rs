use std::sync::Arc;

use mesh_types::Protocol;
use proptest::prelude::*;

use super::*;
use crate::{ServiceNames, ServicePort};

fn network(name: &str, forward: &[(&str, &[&str])]) -> Arc<NetworkNames> {
    let mut names = NetworkNames::new(name.parse().unwrap());
    for (host, addresses) in forward {
        let addresses: Vec<IpAddr> = addresses.iter().map(|a| a.parse().unwrap()).collect();
        for address in &addresses {
            names.reverse.insert(*address, format!("{host}.{name}"));
        }
        names.forward.insert((*host).to_owned(), addresses.into());
    }
    names.subnets = vec!["10.10.3.0/24".parse().unwrap(), "fd00:3::/64".parse().unwrap()];
    let port = |protocol, published, target| ServicePort { protocol, published, target };
    if name == "Prod" {
        let ports = vec![
            port(Protocol::Tcp, 80, 8080),
            port(Protocol::Tcp, 8080, 9090),
            port(Protocol::Udp, 5353, 53),
        ];
        let tasks = [("web1".to_owned(), 1), ("Web2".to_owned(), 3)].into();
        let service = Arc::new(ServiceNames { name: "Web".to_owned(), ports, tasks });
        names.services.insert("web".to_owned(), service.clone());
        names.services.insert("www".to_owned(), service);
    }
    Arc::new(names)
}

fn view(forward: bool) -> TaskView {
    let prod = network(
        "Prod",
        &[
            ("web", &["10.10.3.2"]),
            ("tasks.web", &["10.10.3.5", "10.10.3.6", "fd00:3::5"]),
            ("a.b", &["10.10.3.9"]),
            ("web1", &["10.10.3.5"]),
            ("web2", &["10.10.3.6", "fd00:3::6"]),
            ("empty", &[]),
        ],
    );
    let back = network("back", &[("db", &["10.10.4.2"]), ("web", &["fd00:4::2"])]);
    TaskView { networks: vec![prod, back], forward, keep_single_labels: false }
}

fn ask<'a>(view: &'a TaskView, name: &str, qtype: RecordType) -> Told<'a> {
    let text = Text::of_name(&Name::from_ascii(name).unwrap()).unwrap();
    Told(resolve(view, text.as_str(), qtype).0)
}

/// An answer that can be compared with a list.
#[derive(Debug, PartialEq)]
struct Told<'a>(Answer<'a>);

impl PartialEq<Answer<'_>> for Told<'_> {
    fn eq(&self, other: &Answer<'_>) -> bool {
        self.0 == *other
    }
}

impl PartialEq<Vec<IpAddr>> for Told<'_> {
    fn eq(&self, other: &Vec<IpAddr>) -> bool {
        self.0 == Answer::Addresses(other)
    }
}

fn addresses(list: &[&str]) -> Vec<IpAddr> {
    list.iter().map(|a| a.parse().unwrap()).collect()
}

#[test]
fn names_of_the_tasks_networks() {
    let view = view(true);
    assert_eq!(ask(&view, "web.", RecordType::A), addresses(&["10.10.3.2"]));
    assert_eq!(ask(&view, "WEB.", RecordType::A), addresses(&["10.10.3.2"]));
    assert_eq!(ask(&view, "web.prod.", RecordType::A), addresses(&["10.10.3.2"]));
    assert_eq!(ask(&view, "Tasks.Web.PROD.", RecordType::A), addresses(&["10.10.3.5", "10.10.3.6"]));
    assert_eq!(ask(&view, "tasks.web.", RecordType::AAAA), addresses(&["fd00:3::5"]));
    assert_eq!(
        ask(&view, "tasks.web.", RecordType::ANY),
        addresses(&["10.10.3.5", "10.10.3.6", "fd00:3::5"])
    );
    assert_eq!(ask(&view, "a.b.", RecordType::A), addresses(&["10.10.3.9"]));
    // Two networks know the name, each in its own family.
    assert_eq!(ask(&view, "web.", RecordType::AAAA), addresses(&["fd00:4::2"]));
    assert_eq!(ask(&view, "web.prod.", RecordType::AAAA), Answer::NoData);
}

#[test]
fn known_names_without_what_is_asked_for() {
    let view = view(true);
    assert_eq!(ask(&view, "db.", RecordType::AAAA), Answer::NoData);
    assert_eq!(ask(&view, "db.", RecordType::MX), Answer::NoData);
    assert_eq!(ask(&view, "empty.", RecordType::A), Answer::NoData);
    assert_eq!(ask(&view, "2.3.10.10.in-addr.arpa.", RecordType::A), Answer::NoData);
}

#[test]
fn unknown_names() {
    for (forward, unknown) in [(true, Answer::Forward), (false, Answer::NxDomain)] {
        let view = view(forward);
        for name in ["nope.", "example.com.", "web.prod.example.com.", ".", "9.9.9.9.in-addr.arpa."] {
            assert_eq!(ask(&view, name, RecordType::A), unknown, "{name}");
        }
        for name in ["nope.prod.", "tasks.nope.PROD.", "db.prod.", "web.x.back."] {
            assert_eq!(ask(&view, name, RecordType::A), Answer::NxDomain, "{name}");
        }
    }
}

#[test]
fn names_of_addresses() {
    let view = view(true);
    assert_eq!(ask(&view, "2.3.10.10.in-addr.arpa.", RecordType::PTR), Answer::Ptr("web.Prod"));
    let v6 = "5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.3.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.";
    // fd00:3:: has its 3 in the second group.
    let v6 = v6.replace("0.0.0.0.3.0.0.0.0.0.0.0.0.0.d.f", "0.0.0.0.0.0.0.0.3.0.0.0.0.0.d.f");
    assert_eq!(ask(&view, &v6, RecordType::PTR), Answer::Ptr("tasks.web.Prod"));
    assert_eq!(ask(&view, "77.3.10.10.in-addr.arpa.", RecordType::PTR), Answer::NxDomain);
    assert_eq!(ask(&view, "1.0.168.192.in-addr.arpa.", RecordType::PTR), Answer::Forward);
    assert_eq!(ask(&view, "3.10.10.in-addr.arpa.", RecordType::PTR), Answer::Forward);
}

#[test]
fn nothing_of_networks_that_the_task_is_not_on() {
    let mut view = view(true);
    view.networks.truncate(1);
    assert_eq!(ask(&view, "db.", RecordType::A), Answer::Forward);
    assert_eq!(ask(&view, "2.4.10.10.in-addr.arpa.", RecordType::PTR), Answer::Forward);
}

#[test]
fn a_networks_own_name_is_known_and_empty() {
    let view = view(true);
    for name in ["prod.", "PROD.", "back."] {
        assert_eq!(ask(&view, name, RecordType::A), Answer::NoData, "{name}");
    }
}

#[test]
fn services_by_their_ports() {
    let view = view(true);
    let places = |name: &str| match ask(&view, name, RecordType::SRV).0 {
        Answer::Services(places) => {
            let mut told: Vec<_> =
                places.iter().map(|p| (p.target.clone(), p.port, p.weight, p.addresses.len())).collect();
            told.sort();
            told
        }
        other => panic!("{name}: {other:?}"),
    };
    let one = |port| vec![("Web.Prod".to_owned(), port, 0, 1)];
    // 80 is published for 8080.
    for name in ["_http._tcp.web.", "_HTTP._TCP.Web.Prod.", "_80._tcp.www.", "_http._tcp.www.prod."] {
        assert_eq!(places(name), one(8080), "{name}");
    }
    // 8080 is published too, for 9090; who listens on 8080 is meant first.
    assert_eq!(places("_8080._tcp.web."), one(8080));
    assert_eq!(places("_http-alt._tcp.web."), one(8080));
    assert_eq!(places("_9090._tcp.web."), one(9090));
    assert_eq!(places("_domain._udp.web."), one(53));
    let each = vec![("Web2.Prod".to_owned(), 8080, 3, 2), ("web1.Prod".to_owned(), 8080, 1, 1)];
    assert_eq!(places("_http._tcp.tasks.web."), each);
    assert_eq!(places("_http._tcp.tasks.web.prod."), each);
}

#[test]
fn what_is_near_a_service_is_no_one_elses() {
    let view = view(true);
    for (name, answer) in [
        ("_http._tcp.web.", Answer::NoData),
        ("_tcp.web.", Answer::NoData),
        ("_tcp.web.prod.", Answer::NoData),
        ("_sctp.web.", Answer::NxDomain),
        ("_https._tcp.web.", Answer::NxDomain),
        ("_http._udp.web.", Answer::NxDomain),
        ("_http._tcp.db.", Answer::NxDomain),
        ("_http._tcp.web1.", Answer::NxDomain),
        ("_x._http._tcp.web.", Answer::NxDomain),
        ("_http._tcp.nope.prod.", Answer::NxDomain),
        ("_http._tcp.example.com.", Answer::Forward),
        ("_http._tcp.nope.", Answer::Forward),
        ("_tcp.", Answer::Forward),
    ] {
        assert_eq!(ask(&view, name, RecordType::A), answer, "{name}");
        let srv = if name == "_http._tcp.web." { continue } else { ask(&view, name, RecordType::SRV) };
        assert_eq!(srv, answer, "{name}");
    }
}

#[test]
fn what_means_the_host_itself() {
    let view = view(true);
    for name in ["localhost.", "db.LOCALHOST."] {
        assert_eq!(ask(&view, name, RecordType::A), addresses(&["127.0.0.1"]));
        assert_eq!(ask(&view, name, RecordType::AAAA), addresses(&["::1"]));
        assert_eq!(ask(&view, name, RecordType::MX), Answer::NoData);
    }
    assert_eq!(ask(&view, "1.0.0.127.in-addr.arpa.", RecordType::PTR), Answer::Ptr("localhost"));
    let within = reverse_name("169.254.64.9".parse().unwrap()) + ".";
    assert_eq!(ask(&view, &within, RecordType::PTR), Answer::NxDomain);
}

#[test]
fn single_labels_are_kept_where_ndots_says_so() {
    let view = TaskView { keep_single_labels: true, ..view(true) };
    assert_eq!(ask(&view, "nope.", RecordType::A), Answer::NxDomain);
    assert_eq!(ask(&view, "web.", RecordType::A), addresses(&["10.10.3.2"]));
    for name in ["example.com.", ".", "9.9.9.9.in-addr.arpa."] {
        assert_eq!(ask(&view, name, RecordType::A), Answer::Forward, "{name}");
    }
}

#[test]
fn bytes_that_no_name_of_ours_has() {
    for label in [&b"tasks.web"[..], &[0xff, 0x00, 0x80]] {
        assert!(Text::of_name(&Name::from_labels([label, b"prod"]).unwrap()).is_none());
    }
    assert_eq!(Text::of_name(&Name::root()).unwrap().as_str(), "");
    let longest = Name::from_labels([&[b'A'; 63][..], &[b'a'; 63], &[b'a'; 63], &[b'a'; 61]]).unwrap();
    let text = Text::of_name(&longest).unwrap();
    assert_eq!((text.as_str().len(), &text.as_str()[..3]), (253, "aaa"));
}

proptest! {
    #[test]
    fn nothing_of_ours_leaks_and_case_is_nothing(
        labels in prop::collection::vec(
            "(web|tasks|db|prod|back|a|b|empty|x|com|_tcp|_http|_80|localhost|arpa|in-addr|[0-9]{1,3})", 0..7,
        ),
        upper in prop::collection::vec(any::<bool>(), 64),
        forward: bool,
        qtype in prop::sample::select(vec![RecordType::A, RecordType::AAAA, RecordType::PTR, RecordType::MX, RecordType::ANY]),
    ) {
        let view = view(forward);
        let text = labels.join(".") + ".";
        let answer = ask(&view, &text, qtype);
        let mixed: String = text.chars().zip(upper.iter().cycle())
            .map(|(c, up)| if *up { c.to_ascii_uppercase() } else { c }).collect();
        prop_assert_eq!(&ask(&view, &mixed, qtype), &answer);
        if !forward {
            prop_assert!(answer.0 != Answer::Forward);
        }
        let last = labels.last().map(String::as_str);
        if matches!(last, Some("prod" | "back" | "localhost")) {
            prop_assert!(answer.0 != Answer::Forward);
        }
        match &answer.0 {
            Answer::Addresses(list) => prop_assert!(!list.is_empty()),
            Answer::Services(list) => prop_assert!(!list.is_empty()),
            _ => {}
        }
    }
}
