use super::*;

fn dump(node: &str, entries: Vec<EntryDump>) -> Dump {
    let table = |network_id: Option<&str>| TableDump {
        network_id: network_id.map(str::to_owned),
        network: None,
        entries: 0,
        tombstones: 0,
        digest: String::new(),
        equal_millis: None,
        behind_millis: None,
    };
    Dump {
        node_id: node.to_owned(),
        node_name: node.to_owned(),
        gossip: GossipReport::new(v1::GossipStatus::default(), &BTreeMap::new()),
        networks: BTreeMap::new(),
        tables: vec![table(None), table(Some("net"))],
        entries,
    }
}

fn endpoint(task: &str, statement: u64) -> EntryDump {
    EntryDump {
        table: Some("net".to_owned()),
        owner: "n1".to_owned(),
        incarnation: 7,
        statement,
        counts: true,
        content: ContentDump::Endpoint {
            task_id: task.to_owned(),
            network_id: "net".to_owned(),
            name: format!("name-of-{task}"),
            addresses: vec!["10.0.0.1".to_owned()],
            state: "ready".to_owned(),
        },
    }
}

fn gone(task: &str, statement: u64) -> EntryDump {
    let content = ContentDump::Gone { task_id: task.to_owned(), network_id: "net".to_owned(), age_millis: 5 };
    EntryDump { content, ..endpoint(task, statement) }
}

fn texts(differences: &[Difference]) -> Vec<(&str, Option<&str>, Option<&str>)> {
    differences.iter().map(|d| (d.what.as_str(), d.here.as_deref(), d.there.as_deref())).collect()
}

#[test]
fn equal_knowledge_has_no_differences() {
    let (a, b) = (endpoint("a", 1), endpoint("b", 2));
    let here = dump("n1", vec![a.clone(), b.clone(), gone("c", 3)]);
    assert_eq!(here.differences(&dump("n2", vec![b, a])), [], "what is deleted is not there");
}

#[test]
fn what_one_knows_otherwise_is_told() {
    let absent = EntryDump { counts: false, ..endpoint("d", 4) };
    let here = dump("n1", vec![endpoint("a", 1), endpoint("b", 2), gone("c", 5), absent]);
    let there = dump("n2", vec![endpoint("b", 6), endpoint("c", 3), endpoint("d", 4)]);
    assert_eq!(
        texts(&here.differences(&there)),
        [
            ("name-of-a", Some("7.1"), None),
            ("name-of-b", Some("7.2"), Some("7.6")),
            ("name-of-c", Some("gone (7.5)"), Some("7.3")),
            ("name-of-d", Some("7.4, owner gone"), Some("7.4")),
        ]
    );
}

#[test]
fn a_table_that_one_does_not_have_is_no_difference() {
    let mut there = dump("n2", vec![]);
    there.tables.pop();
    assert_eq!(dump("n1", vec![endpoint("a", 1)]).differences(&there), []);
}

#[test]
fn dumps_are_read_as_they_are_written() {
    let interest = EntryDump {
        table: None,
        content: ContentDump::Interest { all: false, networks: vec!["net".to_owned()] },
        ..endpoint("a", 1)
    };
    let written = dump("n1", vec![endpoint("a", 1), gone("b", 2), interest]);
    let json = serde_json::to_string(&written).unwrap();
    assert_eq!(serde_json::from_str::<Dump>(&json).unwrap(), written);
}
