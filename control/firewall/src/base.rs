//! Chains that the kernel has packets pass.

use serde_json::Value;

use crate::{Keeper, iptables::TOOL};

/// A base chain of a filter, not one that others jump to.
#[derive(Debug, Clone, Copy)]
pub struct Base<'a> {
    pub(crate) chain: &'a Value,
    /// Where packets pass it: `input`, `output`, `forward`, `prerouting` or `postrouting`.
    pub hook: &'a str,
    /// `ip`, `ip6` or `inet`.
    pub family: &'a str,
    /// Its table's name.
    pub table: &'a str,
    /// Its own name.
    pub name: &'a str,
    /// The program that keeps it, where that is known: the one to change it by.
    pub keeper: Option<Keeper>,
}

impl<'a> Base<'a> {
    /// Of an object as nftables lists it; none if packets of IP do not pass it.
    pub(crate) fn of(chain: &'a Value, keeper: Option<Keeper>) -> Option<Self> {
        let word = |key: &str| chain[key].as_str().unwrap_or_default();
        let base = Self {
            chain,
            hook: word("hook"),
            family: word("family"),
            table: word("table"),
            name: word("name"),
            keeper,
        };
        let hooks = ["input", "output", "forward", "prerouting", "postrouting"];
        (hooks.contains(&base.hook) && ["ip", "ip6", "inet"].contains(&base.family)).then_some(base)
    }

    /// Whether packets come to it before it is known by which way they leave.
    pub fn is_way_in(&self) -> bool {
        matches!(self.hook, "input" | "prerouting")
    }

    /// Whether it drops what no rule of it decides on.
    pub fn drops_the_rest(&self) -> bool {
        self.chain["policy"] == "drop"
    }

    /// The program that changes it, if it is of the older iptables.
    pub fn older(&self) -> Option<&'a str> {
        self.chain[TOOL].as_str()
    }

    /// What to call it.
    pub fn place(&self) -> String {
        let Self { hook, family, table, name, .. } = self;
        match self.older() {
            Some(tool) => format!("chain {name} of table {table} ({tool})"),
            None => format!("chain {name} of nftables table {family} {table} ({hook})"),
        }
    }

    /// The command that puts a rule before all others, said in nftables' words and those of iptables.
    pub fn insert(&self, nft: &str, iptables: &str) -> String {
        let Self { family, table, name, .. } = self;
        let usual = ["INPUT", "OUTPUT", "FORWARD"].contains(name) && *table == "filter" && *family != "inet";
        match (self.older(), *family) {
            (Some(tool), _) => format!("`{tool} -t {table} -I {name} {iptables}`"),
            (None, "ip6") if usual => format!("`ip6tables -I {name} {iptables}`"),
            (None, _) if usual => format!("`iptables -I {name} {iptables}`"),
            (None, _) => format!("`nft insert rule {family} {table} {name} {nft}`"),
        }
    }
}
