//! What meshd holds in a node's kernel, to be compared before and after.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use anyhow::{Result, ensure};

use crate::{cluster::Cluster, maps, node::Node, process::output, wait::wait};

const REST: Duration = Duration::from_secs(20);

/// Links, routes, permanent neighbours, firewall, pins and map entries of a node, by kind, one line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inventory(BTreeMap<&'static str, Vec<String>>);

impl Inventory {
    /// Looks at `node`.
    pub fn of(node: &Node) -> Result<Self> {
        let lines = |words: &[&str]| -> Result<Vec<String>> {
            let (program, rest) = words.split_first().unwrap_or((&"ip", &[]));
            let text = output(node.command(program)?.args(rest))?;
            let mut lines: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
            lines.sort();
            Ok(lines)
        };
        let mut links = node.links()?;
        links.sort();
        let pins = node.pins();
        let entries = pins.iter().filter_map(|pin| {
            // Established flows end by time.
            let count = maps::entries(&node.bpf_folder().join(pin)).filter(|_| !pin.ends_with("_KEPT"))?;
            Some(format!("{pin}: {count}"))
        });
        Ok(Self(BTreeMap::from([
            ("map entries", entries.collect()),
            ("links", links),
            ("routes", lines(&["ip", "-4", "route", "show", "table", "all"])?),
            ("neighbours", lines(&["ip", "neigh", "show", "nud", "permanent"])?),
            ("firewall", lines(&["nft", "list", "ruleset"])?),
            ("pins", pins),
        ])))
    }

    /// Looks at each node of `cluster`, once a second long nothing changes on any.
    pub fn settled(cluster: &Cluster) -> Result<Vec<Self>> {
        let look = || cluster.nodes().iter().map(Self::of).collect::<Result<Vec<_>>>();
        wait("the nodes to come to rest", REST, || {
            let before = look()?;
            std::thread::sleep(Duration::from_secs(1));
            let after = look()?;
            for (before, after) in before.iter().zip(&after) {
                ensure!(before == after, "still changing: {}", before.difference(after));
            }
            Ok(after)
        })
    }

    /// All but one kind, which others change too: Docker's rules of the firewall count packets.
    pub fn without(mut self, kind: &str) -> Self {
        self.0.remove(kind);
        self
    }

    /// What differs in `after`, one line each: `-` is gone, `+` is new.
    pub fn difference(&self, after: &Self) -> String {
        let mut text = String::new();
        for (kind, before) in &self.0 {
            let after = after.0.get(kind).map(Vec::as_slice).unwrap_or_default();
            let gone = before.iter().filter(|line| !after.contains(line)).map(|line| ('-', line));
            let new = after.iter().filter(|line| !before.contains(line)).map(|line| ('+', line));
            for (sign, line) in gone.chain(new) {
                // Writing to a string does not fail.
                let _ = writeln!(text, "{kind}: {sign}{line}");
            }
        }
        text
    }
}
