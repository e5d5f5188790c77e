//! What happened between two looks at a node.

use std::collections::BTreeMap;

use mesh_api::v1::{NodeSnapshot, Traffic};
use serde::Serialize;

/// What is done in a second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Rate {
    pub bytes_in: f64,
    pub bytes_out: f64,
    pub packets_in: f64,
    pub packets_out: f64,
    pub new_flows: f64,
    pub drops: f64,
}

/// A service, a task or a network.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    pub name: String,
    /// The network of a task, the tasks of a service that take flows, the endpoints of a network.
    pub about: String,
    /// Established flows that it serves here.
    pub flows: u64,
    #[serde(flatten)]
    pub rate: Rate,
}

/// How a node does, for programs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    pub node: String,
    pub seconds: f64,
    /// Members by state.
    pub members: BTreeMap<String, u32>,
    /// Why the last change of the data path failed; `null` if it did not.
    pub fault: Option<String>,
    pub services: Vec<Row>,
    pub tasks: Vec<Row>,
    pub networks: Vec<Row>,
    /// Packets dropped in a second, by reason; those alone that there were.
    pub drops: BTreeMap<String, f64>,
}

/// What the rows are ordered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Sort {
    #[default]
    Traffic,
    Flows,
    New,
    Drops,
    Name,
}

impl Sort {
    /// The next one, after the last the first.
    pub fn next(self) -> Self {
        match self {
            Self::Traffic => Self::Flows,
            Self::Flows => Self::New,
            Self::New => Self::Drops,
            Self::Drops => Self::Name,
            Self::Name => Self::Traffic,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Traffic => "traffic",
            Self::Flows => "flows",
            Self::New => "new",
            Self::Drops => "drops",
            Self::Name => "name",
        }
    }

    fn order(self, rows: &mut [Row]) {
        let most = |value: fn(&Row) -> f64| move |a: &Row, b: &Row| value(b).total_cmp(&value(a));
        rows.sort_by(|a, b| a.name.cmp(&b.name).then(a.about.cmp(&b.about)));
        match self {
            Self::Traffic => rows.sort_by(most(|row| row.rate.bytes_in + row.rate.bytes_out)),
            Self::Flows => rows.sort_by_key(|row| std::cmp::Reverse(row.flows)),
            Self::New => rows.sort_by(most(|row| row.rate.new_flows)),
            Self::Drops => rows.sort_by(most(|row| row.rate.drops)),
            Self::Name => {}
        }
    }
}

impl Report {
    /// From an earlier and a later look.
    pub fn new(before: &NodeSnapshot, now: &NodeSnapshot, sort: Sort) -> Self {
        let millis = now.unix_millis.saturating_sub(before.unix_millis).max(1);
        let seconds = millis as f64 / 1000.0;
        let rate = |a: Traffic, b: Traffic| {
            // What began anew in between counts from there.
            let per = |a: u64, b: u64| (if b >= a { b - a } else { b }) as f64 / seconds;
            Rate {
                bytes_in: per(a.bytes_in, b.bytes_in),
                bytes_out: per(a.bytes_out, b.bytes_out),
                packets_in: per(a.packets_in, b.packets_in),
                packets_out: per(a.packets_out, b.packets_out),
                new_flows: per(a.new_flows, b.new_flows),
                drops: per(a.drops, b.drops),
            }
        };
        let services = now.services.iter().map(|service| {
            let earlier = before.services.iter().find(|other| other.service_id == service.service_id);
            let all = |of: Option<&mesh_api::v1::ServiceCounts>| {
                let each = of.into_iter().flat_map(|s| &s.frontends).filter_map(|front| front.traffic);
                each.fold(Traffic::default(), sum)
            };
            Row {
                name: service.name.clone(),
                about: format!("{}/{}", service.ready, service.tasks),
                flows: service.flows,
                rate: rate(all(earlier), all(Some(service))),
            }
        });
        let tasks = now.endpoints.iter().map(|task| {
            let same = |other: &&mesh_api::v1::EndpointCounts| {
                (&other.task_id, &other.network_id) == (&task.task_id, &task.network_id)
            };
            let earlier = before.endpoints.iter().find(same).and_then(|task| task.traffic);
            let rate = rate(earlier.unwrap_or_default(), task.traffic.unwrap_or_default());
            Row { name: task.task.clone(), about: task.network.clone(), flows: task.flows, rate }
        });
        let networks = now.networks.iter().map(|network| {
            let earlier = before.networks.iter().find(|other| other.network_id == network.network_id);
            let earlier = earlier.and_then(|network| network.traffic).unwrap_or_default();
            Row {
                name: network.name.clone(),
                about: network.endpoints.to_string(),
                flows: network.flows,
                rate: rate(earlier, network.traffic.unwrap_or_default()),
            }
        });
        let (mut services, mut tasks, mut networks): (Vec<_>, Vec<_>, Vec<_>) =
            (services.collect(), tasks.collect(), networks.collect());
        [&mut services, &mut tasks, &mut networks].into_iter().for_each(|rows| sort.order(rows));
        let drops = now.drops.iter().filter_map(|(reason, count)| {
            let more = count.saturating_sub(before.drops.get(reason).copied().unwrap_or_default());
            (more > 0).then(|| (reason.clone(), more as f64 / seconds))
        });
        Self {
            node: now.node_name.clone(),
            seconds,
            members: now.members.clone(),
            fault: Some(now.fault.clone()).filter(|fault| !fault.is_empty()),
            drops: drops.collect(),
            services,
            tasks,
            networks,
        }
    }
}

fn sum(a: Traffic, b: Traffic) -> Traffic {
    Traffic {
        packets_in: a.packets_in + b.packets_in,
        bytes_in: a.bytes_in + b.bytes_in,
        packets_out: a.packets_out + b.packets_out,
        bytes_out: a.bytes_out + b.bytes_out,
        new_flows: a.new_flows + b.new_flows,
        drops: a.drops + b.drops,
    }
}

#[cfg(test)]
mod tests {
    use mesh_api::v1::{EndpointCounts, FrontendCounts, ServiceCounts};

    use super::*;

    fn traffic(bytes: u64) -> Option<Traffic> {
        Some(Traffic { bytes_in: bytes, packets_in: bytes / 100, ..Traffic::default() })
    }

    fn task(name: &str, flows: u64, bytes: u64) -> EndpointCounts {
        EndpointCounts {
            task_id: name.to_owned(),
            task: name.to_owned(),
            flows,
            traffic: traffic(bytes),
            ..EndpointCounts::default()
        }
    }

    fn look(millis: u64, a: u64, b: u64, drops: u64) -> NodeSnapshot {
        let fronts =
            [a, b].map(|bytes| FrontendCounts { traffic: traffic(bytes), ..FrontendCounts::default() });
        NodeSnapshot {
            unix_millis: millis,
            endpoints: vec![task("a", 3, a), task("b", 5, b)],
            services: vec![ServiceCounts { frontends: fronts.into(), ..ServiceCounts::default() }],
            drops: [("no-backend".to_owned(), drops), ("malformed".to_owned(), 7)].into(),
            ..NodeSnapshot::default()
        }
    }

    #[test]
    fn rates_are_differences_in_time() {
        let report = Report::new(&look(1000, 1000, 0, 7), &look(3000, 5000, 1000, 9), Sort::Traffic);
        assert_eq!(report.seconds, 2.0);
        let names: Vec<_> = report.tasks.iter().map(|row| (row.name.as_str(), row.rate.bytes_in)).collect();
        assert_eq!(names, [("a", 2000.0), ("b", 500.0)]);
        assert_eq!(report.services[0].rate.bytes_in, 2500.0);
        assert_eq!(report.drops, [("no-backend".to_owned(), 1.0)].into());
    }

    #[test]
    fn what_began_anew_is_not_less_than_nothing() {
        let report = Report::new(&look(0, 9000, 0, 9), &look(1000, 500, 0, 3), Sort::Traffic);
        assert_eq!((report.tasks[0].rate.bytes_in, report.drops.len()), (500.0, 0));
    }

    #[test]
    fn orders() {
        let first = |sort| Report::new(&look(0, 0, 0, 0), &look(1000, 2, 1, 0), sort).tasks[0].name.clone();
        assert_eq!([Sort::Traffic, Sort::Flows, Sort::Name].map(first), ["a", "b", "a"]);
        let mut sort = Sort::Traffic;
        for _ in 0..5 {
            sort = sort.next();
        }
        assert_eq!(sort, Sort::Traffic);
    }
}
