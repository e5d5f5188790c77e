use std::sync::Arc;

use proptest::prelude::*;

use super::*;

fn network(name: &str, forward: &[(&str, &[&str])]) -> Arc<NetworkNames> {
    let mut names = NetworkNames::new(name.parse().unwrap());
    for (host, addresses) in forward {
        let addresses: Vec<IpAddr> = addresses.iter().map(|a| a.parse().unwrap()).collect();
        for address in &addresses {
            names.reverse.insert(*address, format!("{host}.{name}"));
        }
        names.forward.insert((*host).to_owned(), addresses);
    }
    names.subnets = vec!["10.10.3.0/24".parse().unwrap(), "fd00:3::/64".parse().unwrap()];
    Arc::new(names)
}

fn view(forward: bool) -> TaskView {
    let prod = network(
        "Prod",
        &[
            ("web", &["10.10.3.2"]),
            ("tasks.web", &["10.10.3.5", "10.10.3.6", "fd00:3::5"]),
            ("a.b", &["10.10.3.9"]),
            ("empty", &[]),
        ],
    );
    let back = network("back", &[("db", &["10.10.4.2"]), ("web", &["fd00:4::2"])]);
    TaskView { networks: vec![prod, back], forward }
}

fn ask(view: &TaskView, name: &str, qtype: RecordType) -> Answer {
    resolve(view, &Name::from_ascii(name).unwrap(), qtype)
}

fn addresses(list: &[&str]) -> Answer {
    Answer::Addresses(list.iter().map(|a| a.parse().unwrap()).collect())
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
        for name in ["nope.", "example.com.", "prod.", "web.prod.example.com.", ".", "9.9.9.9.in-addr.arpa."]
        {
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
    assert_eq!(ask(&view, "2.3.10.10.in-addr.arpa.", RecordType::PTR), Answer::Ptr("web.Prod".to_owned()));
    let v6 = "5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.3.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.";
    // fd00:3:: has its 3 in the second group.
    let v6 = v6.replace("0.0.0.0.3.0.0.0.0.0.0.0.0.0.d.f", "0.0.0.0.0.0.0.0.3.0.0.0.0.0.d.f");
    assert_eq!(ask(&view, &v6, RecordType::PTR), Answer::Ptr("tasks.web.Prod".to_owned()));
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
fn bytes_that_no_name_of_ours_has() {
    let view = view(true);
    let dotted = Name::from_labels([&b"tasks.web"[..]]).unwrap();
    assert_eq!(resolve(&view, &dotted, RecordType::A), Answer::Forward);
    let binary = Name::from_labels([&[0xff, 0x00, 0x80][..], b"prod"]).unwrap();
    assert_eq!(resolve(&view, &binary, RecordType::A), Answer::Forward);
}

proptest! {
    #[test]
    fn nothing_of_ours_leaks_and_case_is_nothing(
        labels in prop::collection::vec("(web|tasks|db|prod|back|a|b|empty|x|com|arpa|in-addr|[0-9]{1,3})", 0..7),
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
            prop_assert_ne!(&answer, &Answer::Forward);
        }
        let last = labels.last().map(String::as_str);
        if labels.len() > 1 && matches!(last, Some("prod" | "back")) {
            prop_assert_ne!(&answer, &Answer::Forward);
        }
        if let Answer::Addresses(list) = &answer {
            prop_assert!(!list.is_empty());
        }
    }
}
