//! The pure part: what is different between two states.

use std::{cmp::Ordering, collections::BTreeMap, fmt};

use mesh_store::{Kind, State};
use mesh_types::{Affinity, HealthCheck, Lookup, Name, Network, Node, PortConfig, Service, format_seconds};

use crate::gossip_keys::word;

/// What became of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// It is new.
    Create,
    /// It is another than before.
    Update,
    /// It is no more.
    Remove,
}

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// A node, a network, a service.
    Object(Kind),
    /// The cluster as a whole.
    Cluster,
    /// A task: its health.
    Task,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Object(kind) => kind.fmt(f),
            Self::Cluster => f.pad("cluster"),
            Self::Task => f.pad("task"),
        }
    }
}

/// One object that was made, changed or removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    /// What it is.
    pub kind: What,
    /// What became of it.
    pub action: Action,
    /// Its id.
    pub id: String,
    /// Its name; after a removal the last one.
    pub name: String,
    /// Its version; after a removal the state's.
    pub version: u64,
    /// Of a new object all that people look for, of a changed one what is other than before.
    pub attributes: BTreeMap<&'static str, String>,
}

/// The changes that make `new` of `old`: nodes, networks, services, each in the order of their ids. None when there was
/// no cluster before.
pub(crate) fn diff(old: &State, new: &State) -> Vec<Change> {
    let mut changes = Vec::new();
    if old.cluster().is_some() {
        compare(old, new, old.nodes(), new.nodes(), &mut changes);
        compare(old, new, old.networks(), new.networks(), &mut changes);
        compare(old, new, old.services(), new.services(), &mut changes);
        changes.extend(gossip_keys(old, new));
    }
    changes
}

/// How far the key that seals gossip is replaced.
fn gossip_keys(old: &State, new: &State) -> Option<Change> {
    let (before, now) = (old.gossip_keys()?, new.gossip_keys()?);
    (before.version != now.version).then(|| Change {
        kind: What::Cluster,
        action: Action::Update,
        id: new.cluster().map(|id| id.to_string()).unwrap_or_default(),
        name: "gossip-keys".to_owned(),
        version: now.version,
        attributes: said([("phase", word(now.phase).to_owned())]),
    })
}

/// Walks both in the order of their ids.
fn compare<'a, T: Told + 'a>(
    old: &State,
    new: &State,
    before: impl Iterator<Item = &'a T>,
    after: impl Iterator<Item = &'a T>,
    changes: &mut Vec<Change>,
) {
    let (mut before, mut after) = (before.peekable(), after.peekable());
    let change = |object: &T, action, version, attributes| Change {
        kind: What::Object(T::OBJECT),
        action,
        id: object.id_text(),
        name: object.name().to_string(),
        version,
        attributes,
    };
    loop {
        let order = match (before.peek(), after.peek()) {
            (None, None) => return,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(gone), Some(come)) => gone.id().cmp(&come.id()),
        };
        let gone = if order.is_le() { before.next() } else { None };
        let come = if order.is_ge() { after.next() } else { None };
        match (gone, come) {
            (Some(gone), Some(come)) if gone.version() != come.version() => {
                let known = gone.attributes(old);
                let mut now = come.attributes(new);
                // What is no more is told as empty.
                let lost: Vec<_> = known.keys().filter(|key| !now.contains_key(*key)).copied().collect();
                now.retain(|key, value| known.get(key) != Some(value));
                now.extend(lost.into_iter().map(|key| (key, String::new())));
                changes.push(change(come, Action::Update, come.version(), now));
            }
            (Some(gone), None) => {
                changes.push(change(gone, Action::Remove, new.version(), BTreeMap::new()));
            }
            (None, Some(come)) => {
                changes.push(change(come, Action::Create, come.version(), come.attributes(new)));
            }
            _ => {}
        }
    }
}

/// An object that events tell of.
trait Told: Lookup {
    const OBJECT: Kind;
    fn id(&self) -> u128;
    fn name(&self) -> &Name;
    fn version(&self) -> u64;
    fn attributes(&self, state: &State) -> BTreeMap<&'static str, String>;
}

macro_rules! told {
    ($object:ident) => {
        const OBJECT: Kind = Kind::$object;
        fn id(&self) -> u128 {
            self.id.as_u128()
        }
        fn name(&self) -> &Name {
            &self.name
        }
        fn version(&self) -> u64 {
            self.version
        }
    };
}

impl Told for Node {
    told!(Node);

    fn attributes(&self, _: &State) -> BTreeMap<&'static str, String> {
        said([
            ("role", self.role.to_string()),
            ("availability", self.availability.to_string()),
            ("advertise_addr", self.advertise_addr.to_string()),
            ("data_path_addr", self.data_path_addr.to_string()),
            ("labels", labels(&self.labels)),
        ])
    }
}

impl Told for Network {
    told!(Network);

    fn attributes(&self, _: &State) -> BTreeMap<&'static str, String> {
        let flag = |on: bool| if on { "true".to_owned() } else { String::new() };
        said([
            ("vni", self.vni.to_string()),
            ("subnets", list(self.subnets.iter().map(|subnet| subnet.net()))),
            ("attachable", flag(self.attachable)),
            ("internal", flag(self.internal)),
            ("ingress", flag(self.ingress)),
            ("mtu", self.mtu.map(|mtu| mtu.to_string()).unwrap_or_default()),
            ("labels", labels(&self.labels)),
        ])
    }
}

impl Told for Service {
    told!(Service);

    fn attributes(&self, state: &State) -> BTreeMap<&'static str, String> {
        let network =
            |id| state.network(id).map_or_else(|| format!("{id}"), |network| network.name.to_string());
        let aliases = self.networks.iter().flat_map(|on| {
            let network = network(on.network);
            on.aliases.iter().map(move |alias| format!("{network}:{alias}"))
        });
        said([
            ("networks", list(self.networks.iter().map(|on| network(on.network)))),
            ("aliases", list(aliases)),
            ("vips", list(self.networks.iter().flat_map(|on| &on.vips))),
            ("endpoint_mode", self.endpoint_mode.to_string()),
            ("ports", list(self.ports.iter().map(PortConfig::to_string))),
            ("affinity", self.affinity.as_ref().map(Affinity::to_string).unwrap_or_default()),
            ("prefer_local", if self.prefer_local { "true".to_owned() } else { String::new() }),
            ("drain_timeout", format_seconds(self.drain_timeout_secs)),
            ("health", self.health.as_ref().map(HealthCheck::to_string).unwrap_or_default()),
            ("labels", labels(&self.labels)),
        ])
    }
}

fn said<const N: usize>(all: [(&'static str, String); N]) -> BTreeMap<&'static str, String> {
    all.into_iter().filter(|(_, value)| !value.is_empty()).collect()
}

fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(" ")
}

fn labels(labels: &BTreeMap<String, String>) -> String {
    list(labels.iter().map(|(key, value)| format!("{key}={value}")))
}
