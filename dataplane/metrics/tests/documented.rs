//! What people read and load is what the daemon tells.
#![expect(clippy::panic, reason = "a test fails by panicking")]

use std::{collections::BTreeSet, path::PathBuf};

use mesh_metrics::{
    catalogue::ALL,
    text::{Family, Kind},
};

fn file(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn row(family: &Family) -> String {
    let kind = match family.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
        Kind::Info => "info",
    };
    let labels: Vec<_> = family.labels.iter().map(|label| format!("`{label}`")).collect();
    format!("| `{}` | {kind} | {} | {} |", family.sample_name(), labels.join(", "), family.help)
}

#[test]
fn the_page_has_every_metric_and_no_other() {
    let page = file("docs/metrics.md");
    let (_, tables) = page.split_once("## All metrics").unwrap();
    let found: Vec<_> = tables.lines().filter(|line| line.starts_with("| `")).map(str::to_owned).collect();
    let expected: Vec<_> = ALL.iter().map(|family| row(family)).collect();
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found, expected, "docs/metrics.md");
    }
    assert_eq!(found.len(), expected.len(), "docs/metrics.md has rows too many or too few");
}

/// The names that Prometheus knows after a scrape.
fn names() -> BTreeSet<String> {
    let parts = |family: &&Family| match family.kind {
        Kind::Histogram => {
            ["_bucket", "_sum", "_count"].map(|part| format!("{}{part}", family.name)).to_vec()
        }
        _ => vec![family.sample_name()],
    };
    ALL.iter().flat_map(parts).collect()
}

/// The metrics that a text speaks of: words of ours that are no part of a longer one.
fn asked_for(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words
        .filter(|word| word.starts_with("meshd_") || word.starts_with("process_"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn alerts_and_dashboard_ask_for_what_there_is() {
    let names = names();
    for page in ["docs/prometheus/alerts.yaml", "docs/prometheus/alerts_test.yaml", "docs/grafana/meshd.json"]
    {
        let asked = asked_for(&file(page));
        assert!(asked.len() > 8, "{page}: {asked:?}");
        let unknown: Vec<_> = asked.difference(&names).collect();
        assert!(unknown.is_empty(), "{page} asks for {unknown:?}");
        // What stops a cluster on a day that is known.
        for name in
            ["meshd_certificate_expiry_timestamp_seconds", "meshd_ca_certificate_expiry_timestamp_seconds"]
        {
            assert!(asked.contains(name), "{page} lacks {name}");
        }
    }
}

#[test]
fn the_dashboard_is_one() {
    let dashboard: serde_json::Value = serde_json::from_str(&file("docs/grafana/meshd.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len());
    let mut asking = 0;
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        assert!(panel["title"].as_str().is_some_and(|title| !title.is_empty()), "{panel}");
        let place = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        assert!(place("x") + place("w") <= 24 && place("h") > 0, "{panel}");
        for target in panel["targets"].as_array().unwrap() {
            assert!(!asked_for(target["expr"].as_str().unwrap()).is_empty(), "{target}");
            asking += 1;
        }
    }
    assert!(asking > 20);
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let known: BTreeSet<_> = variables.iter().map(|v| v["name"].as_str().unwrap()).collect();
    let mut used = BTreeSet::new();
    for text in file("docs/grafana/meshd.json").split('$').skip(1) {
        let name: String = text
            .trim_start_matches('{')
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
            .collect();
        used.insert(name);
    }
    for name in used.iter().filter(|name| !name.starts_with("__")) {
        assert!(known.contains(name.as_str()), "${name} is no variable");
    }
}
