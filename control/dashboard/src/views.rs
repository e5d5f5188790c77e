//! What each page of the dashboard is told, as JSON.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    board::{Board, Query},
    map::map,
    model::{Cluster, Drops, Event, Problem, Rates, Service},
};

/// Problems, services and events on the first page.
const PROBLEMS: usize = 12;
const SERVICES: usize = 8;
const EVENTS: usize = 12;

/// There is no such thing (any more).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Nothing(pub String);

/// The JSON of a view: `overview`, `nodes`, ..., `service/ID`.
pub(crate) fn view(board: &Board, path: &str, query: &Query) -> Result<String, Nothing> {
    let text = match path.split_once('/') {
        Some(("service", id)) => {
            let service = board.model.services.iter().find(|service| service.id == id);
            let service = service.ok_or_else(|| Nothing("this service is no more".to_owned()))?;
            json(&ServicePage { cluster: brief(board), service, tasks: board.tasks_of(id, query) })
        }
        Some(_) => return Err(Nothing("there is no such page".to_owned())),
        None => match path {
            "overview" => json(&overview(board)),
            "nodes" => json(&Page { cluster: brief(board), list: board.nodes(query) }),
            "networks" => json(&Page { cluster: brief(board), list: board.networks(query) }),
            "services" => json(&Page { cluster: brief(board), list: board.services(query) }),
            "tasks" => json(&Page { cluster: brief(board), list: board.tasks(query) }),
            "events" => json(&Page { cluster: brief(board), list: board.events(query) }),
            "map" => json(&Page { cluster: brief(board), list: map(&board.model) }),
            _ => return Err(Nothing("there is no such page".to_owned())),
        },
    };
    Ok(text)
}

/// What every page shows of the cluster.
#[derive(Serialize)]
struct Brief<'a> {
    leader: Option<&'a str>,
    reporting: usize,
    nodes: usize,
}

fn brief(board: &Board) -> Brief<'_> {
    let cluster = &board.model.cluster;
    Brief { leader: cluster.leader.as_deref(), reporting: cluster.reporting, nodes: board.model.nodes.len() }
}

#[derive(Serialize)]
struct Page<'a, L> {
    cluster: Brief<'a>,
    list: L,
}

#[derive(Serialize)]
struct ServicePage<'a, L> {
    cluster: Brief<'a>,
    service: &'a Service,
    tasks: L,
}

#[derive(Serialize)]
struct Overview<'a> {
    cluster: &'a Cluster,
    /// How many of what are in which state.
    nodes: BTreeMap<&'a str, usize>,
    services: BTreeMap<&'a str, usize>,
    tasks: BTreeMap<&'a str, usize>,
    networks: usize,
    /// Of all nodes that report.
    rates: Option<Rates>,
    drops: Vec<&'a Drops>,
    problems: Vec<&'a Problem>,
    more_problems: usize,
    busiest: Vec<&'a Service>,
    events: Vec<&'a Event>,
}

fn overview(board: &Board) -> Overview<'_> {
    let model = &board.model;
    let rates = model.nodes.iter().filter_map(|node| node.rates);
    let mut drops: Vec<&Drops> = model.drops.iter().filter(|drop| drop.total > 0).collect();
    drops.sort_by(|a, b| {
        let rate = |drop: &Drops| drop.rate.unwrap_or(0.0);
        rate(b).total_cmp(&rate(a)).then(b.total.cmp(&a.total))
    });
    drops.truncate(SERVICES);
    let mut problems: Vec<&Problem> = model.problems.iter().collect();
    problems.sort_by_key(|problem| problem.severity);
    let more_problems = problems.len().saturating_sub(PROBLEMS);
    problems.truncate(PROBLEMS);
    let busiest = Query { sort: "rate".into(), descending: true, limit: SERVICES, ..Query::default() };
    let state_of = |task: &crate::Task| match (task.state.as_str(), task.health.as_str()) {
        ("ready", "unhealthy") => "unhealthy",
        ("ready", "starting") => "starting",
        ("ready", _) => "serving",
        _ => "draining",
    };
    Overview {
        cluster: &model.cluster,
        nodes: tally(model.nodes.iter().map(|node| node.status.as_str())),
        services: tally(model.services.iter().map(|service| service.state.as_str())),
        tasks: tally(model.tasks.iter().map(state_of)),
        networks: model.networks.len(),
        rates: rates.reduce(Rates::plus),
        drops,
        problems,
        more_problems,
        busiest: board.services(&busiest).rows,
        events: model.events.iter().rev().take(EVENTS).collect(),
    }
}

fn tally<'a>(words: impl Iterator<Item = &'a str>) -> BTreeMap<&'a str, usize> {
    let mut counts = BTreeMap::new();
    for word in words {
        *counts.entry(word).or_default() += 1;
    }
    counts
}

/// Rates that are no numbers become null.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Model;

    #[test]
    fn each_page_is_there_and_no_other() {
        let service = Service { id: "a1".into(), ..Service::default() };
        let board = Board::new(Model { services: vec![service], ..Model::default() });
        for page in ["overview", "nodes", "networks", "services", "tasks", "events", "map", "service/a1"] {
            let text = view(&board, page, &Query::default()).unwrap();
            let value: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert!(value["cluster"].is_object(), "{page}: {text}");
        }
        for page in ["", "service", "service/", "service/a2", "nodes/x", "../etc/passwd"] {
            assert!(view(&board, page, &Query::default()).is_err(), "{page}");
        }
    }
}
