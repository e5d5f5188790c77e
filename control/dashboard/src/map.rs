//! Who talks to whom, by service: what the map draws.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Serialize;

use crate::model::{End, Model, Service, Task};

/// Groups that are drawn; the quieter ones are one.
const GROUPS: usize = 40;
/// Services that are drawn although they talk to nobody, where there are no more.
const SILENT: usize = 24;
/// Ports that an edge names.
const PORTS: usize = 3;

/// See the module.
#[derive(Debug, Default, Serialize, PartialEq)]
pub(crate) struct Map {
    pub groups: Vec<Group>,
    pub edges: Vec<Edge>,
    /// Groups that are in "others".
    pub hidden: usize,
}

/// A service, a free-standing task, the outside, or all others.
#[derive(Debug, Clone, Serialize, PartialEq)]
pub(crate) struct Group {
    pub key: String,
    /// `service`, `task`, `outside`, `others`.
    pub kind: &'static str,
    pub name: String,
    /// Of the service or the task.
    pub id: String,
    /// Of a service.
    pub state: String,
    pub tasks: usize,
}

/// All that one group says to another.
#[derive(Debug, Clone, Serialize, PartialEq)]
pub(crate) struct Edge {
    pub from: String,
    pub to: String,
    pub ports: Vec<String>,
    pub more_ports: usize,
    pub flows: u64,
    pub bytes: Option<f64>,
}

const OUTSIDE: &str = "outside";
const OTHERS: &str = "others";

#[derive(Default)]
struct Sum {
    ports: BTreeSet<String>,
    flows: u64,
    bytes: Option<f64>,
}

impl Sum {
    fn add(&mut self, flows: u64, bytes: Option<f64>) {
        self.flows += flows;
        if let Some(bytes) = bytes {
            self.bytes = Some(self.bytes.unwrap_or(0.0) + bytes);
        }
    }
}

/// Groups what is said.
pub(crate) fn map(model: &Model) -> Map {
    let tasks: HashMap<&str, &Task> = model.tasks.iter().map(|task| (task.id.as_str(), task)).collect();
    let services: HashMap<&str, &Service> = model.services.iter().map(|s| (s.id.as_str(), s)).collect();
    let group = |end: &End| match end {
        End::Outside => Some(OUTSIDE.to_owned()),
        End::Task(id) => {
            let task = tasks.get(id.as_str())?;
            Some(match services.contains_key(task.service_id.as_str()) {
                true => format!("s:{}", task.service_id),
                false => format!("t:{id}"),
            })
        }
    };
    let said: Vec<_> =
        model.talks.iter().filter_map(|talk| Some((group(&talk.from)?, group(&talk.to)?, talk))).collect();
    let mut weights: BTreeMap<&str, Sum> = BTreeMap::new();
    for (from, to, talk) in &said {
        for end in [from, to] {
            weights.entry(end).or_default().add(talk.flows, talk.bytes);
        }
    }
    let mut loudest: Vec<_> = weights.into_iter().collect();
    loudest.sort_by(|(a, x), (b, y)| {
        let bytes = |sum: &Sum| sum.bytes.unwrap_or(0.0);
        (*b == OUTSIDE).cmp(&(*a == OUTSIDE)).then(bytes(y).total_cmp(&bytes(x))).then(y.flows.cmp(&x.flows))
    });
    let hidden = loudest.len().saturating_sub(GROUPS);
    let shown: BTreeSet<&str> = loudest.iter().take(GROUPS).map(|(key, _)| *key).collect();
    let place = |key: &str| if shown.contains(key) { key.to_owned() } else { OTHERS.to_owned() };
    let mut edges: BTreeMap<(String, String), Sum> = BTreeMap::new();
    for (from, to, talk) in &said {
        let sum = edges.entry((place(from), place(to))).or_default();
        sum.add(talk.flows, talk.bytes);
        sum.ports.insert(talk.port.clone());
    }
    let mut keys: BTreeSet<String> = shown.iter().map(|key| (*key).to_owned()).collect();
    if hidden > 0 {
        keys.insert(OTHERS.to_owned());
    }
    if model.services.len() <= SILENT {
        keys.extend(model.services.iter().map(|service| format!("s:{}", service.id)));
    }
    let describe = |key: String| {
        let (kind, name, id, state, count) = match key.split_once(':') {
            Some(("s", id)) => {
                let service = services.get(id)?;
                ("service", service.name.clone(), id.to_owned(), service.state.clone(), service.tasks)
            }
            Some((_, id)) => ("task", tasks.get(id)?.name.clone(), id.to_owned(), String::new(), 1),
            None if key == OUTSIDE => (OUTSIDE, "outside".to_owned(), String::new(), String::new(), 0),
            None => (OTHERS, format!("{hidden} others"), String::new(), String::new(), 0),
        };
        Some(Group { key, kind, name, id, state, tasks: count })
    };
    let edge = |((from, to), sum): ((String, String), Sum)| Edge {
        from,
        to,
        more_ports: sum.ports.len().saturating_sub(PORTS),
        ports: sum.ports.into_iter().take(PORTS).collect(),
        flows: sum.flows,
        bytes: sum.bytes,
    };
    Map {
        groups: keys.into_iter().filter_map(describe).collect(),
        edges: edges.into_iter().map(edge).collect(),
        hidden,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Talk;

    fn task(n: usize, service: &str) -> Task {
        Task { id: n.to_string(), name: format!("t{n}"), service_id: service.into(), ..Task::default() }
    }

    fn talk(from: End, to: usize, bytes: f64) -> Talk {
        Talk { from, to: End::Task(to.to_string()), port: "80/tcp".into(), flows: 1, bytes: Some(bytes) }
    }

    #[test]
    fn tasks_of_one_service_are_one_and_the_unknown_are_left_out() {
        let services =
            ["web", "db"].map(|id| Service { id: id.into(), name: id.into(), ..Service::default() });
        let model = Model {
            services: services.into(),
            tasks: vec![task(1, "web"), task(2, "web"), task(3, ""), task(4, "gone")],
            talks: vec![
                talk(End::Outside, 1, 5.0),
                talk(End::Outside, 2, 6.0),
                talk(End::Task("1".into()), 3, 1.0),
                talk(End::Task("9".into()), 3, 1.0),
            ],
            ..Model::default()
        };
        let map = map(&model);
        let keys: Vec<_> = map.groups.iter().map(|group| group.key.as_str()).collect();
        assert_eq!(keys, ["outside", "s:db", "s:web", "t:3"], "one that is silent, too, while they are few");
        let edges: Vec<_> = map.edges.iter().map(|e| (&*e.from, &*e.to, e.flows, e.bytes)).collect();
        assert_eq!(edges, [("outside", "s:web", 2, Some(11.0)), ("s:web", "t:3", 1, Some(1.0))]);
    }

    #[test]
    fn what_is_drawn_is_bounded() {
        let tasks: Vec<Task> = (0..1000).map(|n| task(n, "")).collect();
        let talks = (0..999).map(|n| talk(End::Task(n.to_string()), n + 1, n as f64)).collect();
        let map = map(&Model { tasks, talks, ..Model::default() });
        assert_eq!((map.groups.len(), map.hidden), (GROUPS + 1, 1000 - GROUPS));
        let bytes: f64 = map.edges.iter().filter_map(|edge| edge.bytes).sum();
        assert_eq!(bytes, (0..999).map(f64::from).sum::<f64>(), "nothing is lost");
        assert!(map.edges.len() <= GROUPS + 2);
    }
}
