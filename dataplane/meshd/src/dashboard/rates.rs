//! What passes in a second, from what had passed at two moments.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use mesh_api::v1;
use mesh_dashboard::{Drops, End, Rates, Talk};
use mesh_types::NodeId;

/// What a node said before, and what it said last.
pub type Reports = Vec<(NodeId, Option<Arc<v1::TrafficReport>>, Arc<v1::TrafficReport>)>;

/// All that reports tell, by ids.
#[derive(Debug, Default)]
pub struct Passing {
    /// By node. Those that report are in it.
    pub nodes: HashMap<String, Rates>,
    /// How long each node's manager took to take a report, in milliseconds.
    pub latencies: HashMap<String, f64>,
    /// By network.
    pub networks: HashMap<String, Rates>,
    /// By task.
    pub tasks: HashMap<String, Rates>,
    /// How long the last check of each task took, in milliseconds.
    pub checks: HashMap<String, f64>,
    /// Packets of clients of a service for which there was no task.
    pub refused: HashMap<String, f64>,
    /// By reason.
    pub drops: Vec<Drops>,
    talks: Vec<(v1::Talk, Option<f64>)>,
}

impl Passing {
    /// Of what nodes said.
    pub fn new(reports: &Reports) -> Self {
        let mut passing = Self::default();
        let mut drops: BTreeMap<&str, (u64, Option<f64>)> = BTreeMap::new();
        for (node, before, now) in reports {
            let seconds = before.as_ref().map(|before| seconds(before, now)).filter(|seconds| *seconds > 0.0);
            passing.add(&node.to_string(), before.as_deref().zip(seconds), now);
            for (reason, total) in &now.drops {
                let (sum, rate) = drops.entry(reason).or_default();
                *sum += total;
                if let Some((before, seconds)) = before.as_ref().zip(seconds) {
                    let known = before.drops.get(reason).copied().unwrap_or(0);
                    *rate = Some(rate.unwrap_or(0.0) + per_second(known, *total, seconds));
                }
            }
        }
        let drop = |(reason, (total, rate)): (&str, _)| Drops { reason: reason.to_owned(), total, rate };
        passing.drops = drops.into_iter().map(drop).collect();
        passing
    }

    fn add(&mut self, node: &str, before: Option<(&v1::TrafficReport, f64)>, now: &v1::TrafficReport) {
        let millis = |micros: u64| micros as f64 / 1000.0;
        if now.manager_micros > 0 {
            self.latencies.insert(node.to_owned(), millis(now.manager_micros));
        }
        for task in &now.tasks {
            if let Some(micros) = task.check_micros {
                self.checks.insert(task.task_id.clone(), millis(micros));
            }
        }
        let Some((before, seconds)) = before else {
            self.talks.extend(now.talks.iter().map(|talk| (talk.clone(), None)));
            return;
        };
        let known: HashMap<_, _> =
            before.tasks.iter().map(|task| ((&task.task_id, &task.network_id), task)).collect();
        let of_node = self.nodes.entry(node.to_owned()).or_default();
        for task in &now.tasks {
            let Some(known) = known.get(&(&task.task_id, &task.network_id)) else { continue };
            let rate = |value: fn(&v1::TaskTraffic) -> u64| per_second(value(known), value(task), seconds);
            let rates = Rates {
                packets_in: rate(|t| t.packets_in),
                bytes_in: rate(|t| t.bytes_in),
                packets_out: rate(|t| t.packets_out),
                bytes_out: rate(|t| t.bytes_out),
                flows: rate(|t| t.new_flows),
                drops: rate(|t| t.drops),
            };
            *of_node = of_node.plus(rates);
            for (all, id) in [(&mut self.tasks, &task.task_id), (&mut self.networks, &task.network_id)] {
                let sum = all.entry(id.clone()).or_default();
                *sum = sum.plus(rates);
            }
        }
        // All reasons, also those that are laid to no task.
        of_node.drops = now
            .drops
            .iter()
            .map(|(reason, total)| {
                per_second(before.drops.get(reason).copied().unwrap_or(0), *total, seconds)
            })
            .fold(0.0, |sum, rate| sum + rate);
        let known: HashMap<_, _> = before.services.iter().map(|s| (&s.service_id, s)).collect();
        let mut bytes = HashMap::new();
        for service in &now.services {
            let Some(known) = known.get(&service.service_id) else { continue };
            let refused = per_second(known.drops, service.drops, seconds);
            *self.refused.entry(service.service_id.clone()).or_default() += refused;
            bytes.insert(&service.service_id, per_second(known.bytes, service.bytes, seconds));
        }
        self.share(&bytes, &now.talks);
    }

    /// What a service's clients of one node say and hear is known together; each pair gets its share by its flows.
    fn share(&mut self, bytes: &HashMap<&String, f64>, talks: &[v1::Talk]) {
        let mut flows: HashMap<&String, u64> = HashMap::new();
        for talk in talks {
            *flows.entry(&talk.service).or_default() += talk.flows;
        }
        let share = |talk: &v1::Talk| {
            let all = *flows.get(&talk.service)?;
            Some(bytes.get(&talk.service)? * talk.flows as f64 / all.max(1) as f64)
        };
        self.talks.extend(talks.iter().map(|talk| (talk.clone(), share(talk))));
    }

    /// Who talks to whom; `task` gives the id of a task by its name.
    pub fn talks<'a>(
        &'a self,
        task: impl Fn(&str) -> Option<String> + 'a,
    ) -> impl Iterator<Item = Talk> + 'a {
        self.talks.iter().filter_map(move |(talk, bytes)| {
            let from = match talk.from.as_str() {
                "" => End::Outside,
                name => End::Task(task(name)?),
            };
            let to = End::Task(task(&talk.to)?);
            let port = format!("{}/{}", talk.port, talk.protocol);
            Some(Talk { from, to, port, flows: talk.flows, bytes: *bytes })
        })
    }
}

fn seconds(before: &v1::TrafficReport, now: &v1::TrafficReport) -> f64 {
    now.made_millis.saturating_sub(before.made_millis) as f64 / 1000.0
}

/// What has become less began anew.
fn per_second(before: u64, now: u64, seconds: f64) -> f64 {
    now.checked_sub(before).unwrap_or(now) as f64 / seconds
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(millis: u64, bytes: u64) -> Arc<v1::TrafficReport> {
        let task = |id: &str, bytes_in| v1::TaskTraffic {
            task_id: id.into(),
            network_id: "net".into(),
            bytes_in,
            check_micros: (id == "a").then_some(1500),
            ..Default::default()
        };
        let talk = |from: &str, flows| v1::Talk {
            from: from.into(),
            to: "web.1".into(),
            service: "web".into(),
            port: 80,
            protocol: "tcp".into(),
            flows,
        };
        Arc::new(v1::TrafficReport {
            made_millis: millis,
            tasks: vec![task("a", bytes), task("b", 2 * bytes)],
            services: vec![v1::ServiceTraffic { service_id: "web".into(), bytes: 4 * bytes, drops: bytes }],
            drops: [("no_backend".to_owned(), bytes)].into(),
            talks: vec![talk("", 3), talk("api.1", 1), talk("gone", 4)],
            manager_micros: 700,
            ..Default::default()
        })
    }

    #[test]
    fn rates_are_differences_by_the_node_s_own_clock() {
        let node = NodeId::from_u128(1);
        let passing = Passing::new(&vec![(node, Some(report(1000, 100)), report(3000, 300))]);
        assert_eq!((passing.tasks["a"].bytes_in, passing.tasks["b"].bytes_in), (100.0, 200.0));
        assert_eq!(passing.networks["net"].bytes_in, 300.0);
        let of_node = passing.nodes[&node.to_string()];
        assert_eq!((of_node.bytes_in, of_node.drops), (300.0, 100.0));
        assert_eq!((passing.checks["a"], passing.latencies[&node.to_string()]), (1.5, 0.7));
        assert_eq!(passing.refused["web"], 100.0);
        assert_eq!(passing.drops, [Drops { reason: "no_backend".into(), total: 300, rate: Some(100.0) }]);
        let id = |name: &str| (name != "gone").then(|| format!("id-{name}"));
        let talks: Vec<_> = passing.talks(id).map(|talk| (talk.from, talk.bytes)).collect();
        assert_eq!(talks, [(End::Outside, Some(150.0)), (End::Task("id-api.1".into()), Some(50.0))]);
    }

    #[test]
    fn one_report_is_no_rate_and_less_is_anew() {
        let node = NodeId::from_u128(1);
        let passing = Passing::new(&vec![(node, None, report(1000, 100))]);
        assert!(passing.tasks.is_empty() && passing.nodes.is_empty());
        assert_eq!(passing.drops[0].rate, None);
        assert_eq!(passing.talks(|name| Some(name.to_owned())).count(), 3);
        let passing = Passing::new(&vec![(node, Some(report(1000, 500)), report(2000, 100))]);
        assert_eq!(passing.tasks["a"].bytes_in, 100.0);
    }
}
