//! All rules there are, in the form of `nft --json` (libnftables-json(5)).

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use serde_json::Value;

use crate::{
    Base, Fate, Keeper, Packet, fate,
    iptables::{self, TOOL},
    run::output,
};

/// firewalld's table, in the family `inet` (its `firewall/core/nftables.py`).
const FIREWALLD: &str = "firewalld";
/// What names of ufw's chains begin with, in the table `filter` of iptables and of ip6tables.
const UFW: [&str; 2] = ["ufw-", "ufw6-"];

/// Chains and their rules.
#[derive(Debug, Clone, Default)]
pub struct Ruleset {
    chains: Vec<Value>,
    /// What each rule of a chain says, in their order.
    rules: BTreeMap<Place, Vec<Value>>,
    unlisted: Option<&'static str>,
}

/// A chain: the program of the older iptables, family, table and name.
type Place = [String; 4];

impl Ruleset {
    /// Reads the rules of the namespace that this thread is in, and blocks meanwhile; none where `nft` is missing or refuses.
    pub fn read() -> Option<Self> {
        Some(Self::of_nft(&output("nft", &["-t", "--json", "list", "ruleset"])?).with_older())
    }

    /// As [`Ruleset::read`], of the tables that forwarded packets pass, but for those called `own`; without `nft` the rules of
    /// the older iptables alone.
    pub(crate) fn of_forwarding(own: &str) -> Self {
        let chains = output("nft", &["-t", "--json", "list", "chains"]).unwrap_or_default();
        let chains = Self::of_nft(&chains);
        let forwarding = chains.bases().filter(|base| base.hook == "forward" && base.table != own);
        let tables: BTreeSet<_> = forwarding.map(|base| (base.family, base.table)).collect();
        let mut objects = Vec::new();
        for (family, table) in tables {
            let text = output("nft", &["-t", "--json", "list", "table", family, table]);
            objects.extend(text.as_deref().map(listed).unwrap_or_default());
        }
        Self::of(iptables::translated(objects)).with_older()
    }

    /// Of what `nft --json list ruleset` prints.
    fn of_nft(text: &str) -> Self {
        Self::of(iptables::translated(listed(text)))
    }

    /// Of these objects.
    pub fn of(objects: Vec<Value>) -> Self {
        let mut all = Self::default();
        all.extend(objects);
        all
    }

    fn extend(&mut self, objects: Vec<Value>) {
        for mut object in objects {
            if let Some(chain) = object.get_mut("chain") {
                self.chains.push(chain.take());
            } else if let Some(rule) = object.get_mut("rule") {
                let place = place(rule, &rule["chain"]);
                self.rules.entry(place).or_default().push(rule["expr"].take());
            }
        }
    }

    fn with_older(mut self) -> Self {
        match iptables::older() {
            Ok(objects) => self.extend(objects),
            Err(program) => self.unlisted = Some(program),
        }
        self
    }

    /// The program that would list rules of the older iptables, where there are some and it is missing.
    pub fn unlisted(&self) -> Option<&'static str> {
        self.unlisted
    }

    /// The chains that the kernel has packets of IP pass.
    pub fn bases(&self) -> impl Iterator<Item = Base<'_>> {
        self.chains.iter().filter_map(|chain| Base::of(chain, self.keeper(chain)))
    }

    fn keeper(&self, chain: &Value) -> Option<Keeper> {
        if chain["family"] == "inet" && chain["table"] == FIREWALLD {
            return Some(Keeper::Firewalld);
        }
        let same = |other: &&Value| {
            ["family", "table", TOOL].iter().all(|key| other[*key] == chain[*key])
                && other["name"].as_str().is_some_and(|name| UFW.iter().any(|ufw| name.starts_with(ufw)))
        };
        (chain["table"] == "filter" && self.chains.iter().any(|other| same(&other))).then_some(Keeper::Ufw)
    }

    /// Whether there is a chain of that name in the table of `base`.
    pub(crate) fn has_beside(&self, base: &Base<'_>, name: &str) -> bool {
        let of = |chain: &Value| ["family", "table", TOOL].map(|key| chain[key].clone());
        self.chains.iter().any(|chain| chain["name"] == name && of(chain) == of(base.chain))
    }

    /// From which addresses the tables called `table` masquerade.
    pub(crate) fn masqueraded(&self, table: &str) -> Vec<IpNet> {
        let own = self.rules.iter().filter(|([_, _, of, _], _)| of == table);
        own.flat_map(|(_, rules)| rules.iter().filter_map(masquerades)).collect()
    }

    /// What the chain does with a packet.
    pub fn fate(&self, base: &Base<'_>, packet: &Packet<'_>) -> Fate {
        fate::of(self, base, packet)
    }

    /// Whether the chain surely drops a packet.
    pub fn drops(&self, base: &Base<'_>, packet: &Packet<'_>) -> bool {
        match self.fate(base, packet) {
            Fate::Drops { .. } => true,
            Fate::Falls => base.drops_the_rest(),
            Fate::Passes => false,
        }
    }

    /// What the rules of the chain `name` in the table of `base` say.
    pub(crate) fn rules(&self, base: &Base<'_>, name: &str) -> &[Value] {
        self.rules.get(&place(base.chain, &Value::from(name))).map_or(&[], Vec::as_slice)
    }
}

fn place(of: &Value, chain: &Value) -> Place {
    [&of[TOOL], &of["family"], &of["table"], chain].map(|word| word.as_str().unwrap_or_default().to_owned())
}

/// The addresses that a rule masquerades.
fn masquerades(rule: &Value) -> Option<IpNet> {
    let parts = rule.as_array()?;
    parts.iter().find(|part| part.get("masquerade").is_some())?;
    let from = parts.iter().find(|part| part["match"]["left"]["payload"]["field"] == "saddr")?;
    let prefix = &from["match"]["right"]["prefix"];
    format!("{}/{}", prefix["addr"].as_str()?, prefix["len"].as_u64()?).parse().ok()
}

/// The objects of a list of `nft --json`.
fn listed(text: &str) -> Vec<Value> {
    let mut list: Value = serde_json::from_str(text).unwrap_or_default();
    match list["nftables"].take() {
        Value::Array(objects) => objects,
        _ => Vec::new(),
    }
}
