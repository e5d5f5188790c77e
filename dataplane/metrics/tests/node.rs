//! The text of a whole node.

mod generated;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::SystemTime,
};

use generated::snapshot;
use mesh_agent::Snapshot;
use mesh_metrics::{Facts, Limits, Manager, Member, Metrics, Process, catalogue::ALL, text::Format};

const LIMITS: Limits = Limits { endpoints: 5, services: 2 };

fn facts(snapshot: &Snapshot) -> Facts<'_> {
    let manager = Manager { leads: true, managers: vec![(true, true)], ..Manager::default() };
    Facts {
        version: "0.1.0",
        process: Process::look(SystemTime::UNIX_EPOCH),
        turned_away: 0,
        ready: true,
        member: Some(Member { snapshot, role: "manager", manager: Some(manager) }),
    }
}

/// The samples by their series.
fn samples(text: &str) -> BTreeMap<&str, f64> {
    let mut all = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').unwrap();
        assert!(all.insert(series, value.parse().unwrap()).is_none(), "{series} is there twice");
    }
    all
}

#[test]
fn every_metric_of_the_catalogue_is_told_in_both_formats() {
    let snapshot = snapshot(3, "web.");
    for format in [Format::Prometheus, Format::OpenMetrics] {
        let text = Metrics::new(LIMITS).text(format, &facts(&snapshot));
        let types: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        assert_eq!(types.len(), ALL.len(), "{format:?}");
        for family in ALL {
            let name = if format == Format::OpenMetrics { family.name.to_owned() } else { family.sample_name() };
            assert!(types.iter().any(|line| line.split(' ').next() == Some(&name)), "{name}");
        }
        assert_eq!(text.ends_with("# EOF\n"), format == Format::OpenMetrics);
        samples(&text);
    }
}

#[test]
fn a_node_in_no_cluster_tells_of_itself_alone() {
    let facts = Facts { version: "0.1.0", process: None, turned_away: 3, ready: false, member: None };
    let text = Metrics::new(LIMITS).text(Format::Prometheus, &facts);
    let samples = samples(&text);
    let names: BTreeSet<_> = samples.keys().copied().collect();
    let expected =
        ["meshd_build_info{version=\"0.1.0\"}", "meshd_ready", "meshd_metrics_connections_turned_away_total"];
    assert_eq!(names, expected.into());
    assert_eq!(samples["meshd_ready"], 0.0);
}

#[test]
fn series_have_a_bound_and_sums_are_whole() {
    let mut metrics = Metrics::new(LIMITS);
    let few = snapshot(5, "web.");
    metrics.text(Format::Prometheus, &facts(&few));
    let mut many = snapshot(1000, "web.");
    let text = metrics.text(Format::Prometheus, &facts(&many));
    let samples_of = |text: &str, name: &str| {
        let begin = format!("{name}{{");
        samples(text).into_iter().filter(|(series, _)| series.starts_with(&begin)).count()
    };
    assert_eq!(samples_of(&text, "meshd_endpoint_receive_bytes_total"), 6);
    assert_eq!(samples_of(&text, "meshd_service_tasks"), 3);
    assert_eq!(samples_of(&text, "meshd_frontend_new_flows_total"), 3);
    let found = samples(&text);
    assert_eq!(found["meshd_metrics_left_out{of=\"endpoints\"}"], 995.0);
    assert_eq!(found["meshd_service_tasks{service=\"(other)\"}"], 980.0);
    let other = "meshd_endpoint_receive_packets_total{network=\"(other)\",service=\"(other)\",task=\"(other)\"}";
    assert_eq!(found[other], 0.0, "what was counted before it was looked at is not new");
    // One of those that are summed up carries ten packets more, and then it ends.
    many.endpoints[700].traffic.packets_in += 10;
    let text = metrics.text(Format::Prometheus, &facts(&many));
    assert_eq!(samples(&text)[other], 10.0);
    many.endpoints.remove(700);
    let text = metrics.text(Format::Prometheus, &facts(&many));
    assert_eq!(samples(&text)[other], 10.0);
}

#[test]
fn hostile_names_make_no_series_of_their_own() {
    let snapshot = snapshot(2, "x\"} 1\nmeshd_ready 0\n# {\\");
    let text = Metrics::new(LIMITS).text(Format::Prometheus, &facts(&snapshot));
    assert_eq!(samples(&text)["meshd_ready"], 1.0);
    let lines = text.lines().filter(|line| line.starts_with("meshd_endpoint_flows{"));
    assert_eq!(lines.count(), 2, "{text}");
    assert!(text.contains(r#"task="x\"} 1\nmeshd_ready 0\n# {\\0"} "#), "{text}");
}
