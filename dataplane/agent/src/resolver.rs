//! What a task's resolver is told, and what it would be answered, for people.

use std::{os::fd::AsFd, sync::Arc};

use mesh_dns::{
    Answer, DNS_ADDRESS, Forwarder, NetworkNames, NodeResolver, Place, RecordName, RecordType, TTL,
    TaskForwarder, TaskView, Text, Why, resolve, reverse_name,
};
use mesh_netlink::NetNs;
use mesh_types::{ResolverOption, SearchDomain, TaskDns};
use thiserror::Error;

use crate::{Agent, LocalTask, TaskError, names::origins};

/// The option that lets names of one label be asked for as they are, which those of services and tasks are.
const NDOTS: &str = "ndots:0";

/// What the task's resolver is to be told: what was asked for, else what the node's resolver is told, as Docker does.
pub(crate) fn settings(asked: &TaskDns, node: &NodeResolver) -> TaskDns {
    let mut dns = asked.clone();
    if dns.search.is_empty() {
        dns.search = node.search.iter().filter_map(|domain| domain.parse().ok()).collect();
    }
    dns.search.retain(|domain| !domain.is_none());
    if dns.options.is_empty() {
        dns.options = node.options.iter().filter_map(|option| option.parse().ok()).collect();
    }
    if ndots(&dns.options).is_none() {
        dns.options.extend(NDOTS.parse().ok());
    }
    dns
}

/// The last one counts (resolv.conf(5)).
pub(crate) fn ndots(options: &[ResolverOption]) -> Option<u8> {
    options.iter().rev().find_map(ResolverOption::ndots)
}

/// The way to name servers outside for a task in `ns`.
pub(crate) fn forwarder(
    node: &Forwarder,
    ns: &NetNs,
    dns: &TaskDns,
) -> Result<TaskForwarder, mesh_netlink::Error> {
    if dns.servers.is_empty() {
        return Ok(node.for_task());
    }
    let servers: Vec<_> = dns.servers.iter().map(|server| server.address()).collect();
    Ok(node.for_task_asking(NetNs::from_fd(ns.as_fd())?, &servers))
}

/// Where the namespace had a name server at our own's address before, makes ours the one that answers there.
pub(crate) async fn come_first(ns: &NetNs, dns: &TaskDns) -> Result<(), mesh_netlink::Error> {
    if !dns.servers.iter().any(|server| server.is_previous()) {
        return Ok(());
    }
    let ns = NetNs::from_fd(ns.as_fd())?;
    on_thread(move || mesh_netlink::prefer_own_resolver(&ns)).await
}

/// Takes that back; a namespace that is gone is fine.
pub(crate) async fn step_back(task: &LocalTask) -> Result<(), mesh_netlink::Error> {
    if !task.dns.servers.iter().any(|server| server.is_previous()) || !task.namespace_is_there() {
        return Ok(());
    }
    match task.namespace.open() {
        Ok(ns) => on_thread(move || mesh_netlink::forget_own_resolver(&ns)).await,
        Err(_) => Ok(()),
    }
}

/// Off the threads that must not wait.
async fn on_thread(
    work: impl FnOnce() -> Result<(), mesh_netlink::Error> + Send + 'static,
) -> Result<(), mesh_netlink::Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The daemon ends.
        Err(_) => Ok(()),
    }
}

impl LocalTask {
    /// What its `/etc/resolv.conf` should say.
    pub fn resolv_conf(&self) -> String {
        let mut text = format!("nameserver {}\n", DNS_ADDRESS.ip());
        let mut line = |word: &str, values: Vec<&str>| {
            if !values.is_empty() {
                text.push_str(&format!("{word} {}\n", values.join(" ")));
            }
        };
        line("search", self.dns.search.iter().map(SearchDomain::as_str).collect());
        line("options", self.dns.options.iter().map(ResolverOption::as_str).collect());
        text
    }
}

/// Why a name cannot be explained.
#[derive(Debug, Error)]
pub enum ExplainError {
    /// No such task here.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// Its name server does not run.
    #[error("task {0} has no name server now; `meshctl status` may say why")]
    NoServer(mesh_types::Name),
    /// Not a name.
    #[error("{0:?} is no name that can be asked for")]
    Name(String),
    /// Not a type.
    #[error(
        "record type {0:?} is not known; there are A, AAAA, PTR, SRV, MX, TXT, NS, CNAME, ANY and others"
    )]
    Type(String),
}

/// One question of a task's resolver, and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// The name, complete.
    pub name: String,
    /// `A`, `SRV` and so on.
    pub qtype: String,
    /// `NOERROR`, `NXDOMAIN` and so on; `no answer`.
    pub code: String,
    /// The records, as in a zone file.
    pub records: Vec<String>,
    /// The network that decides.
    pub network: Option<String>,
    /// The rule, in words.
    pub why: String,
    /// Who has the name.
    pub origins: Vec<String>,
    /// Who answered outside.
    pub upstream: Option<String>,
}

impl Agent {
    /// What the task that `reference` means would be answered when a program in it looks for `name`, question by question,
    /// and why. Without a type for the types that programs ask for when they connect. Questions that a task's would leave
    /// the node by do so.
    pub async fn explain_name(
        &self,
        reference: &str,
        name: &str,
        qtype: Option<&str>,
    ) -> Result<(LocalTask, Vec<Explained>), ExplainError> {
        let task = self.task(reference)?;
        let (view, forwarder) =
            self.name_server(task.id).await.ok_or_else(|| ExplainError::NoServer(task.name.clone()))?;
        let qtype = qtype.map(|text| {
            let known = text.to_ascii_uppercase().parse::<RecordType>();
            known.map_err(|_| ExplainError::Type(text.to_owned()))
        });
        let (names, types) = match (name.parse(), qtype.transpose()?) {
            (Ok(address), None | Some(RecordType::PTR)) => {
                (vec![reverse_name(address)], vec![RecordType::PTR])
            }
            (_, Some(qtype)) => (candidates(name, &task.dns), vec![qtype]),
            (_, None) => (candidates(name, &task.dns), vec![RecordType::A, RecordType::AAAA]),
        };
        let mut all = Vec::new();
        for candidate in names {
            let complete = RecordName::from_ascii(format!("{}.", candidate.trim_end_matches('.')));
            let complete = complete.map_err(|_| ExplainError::Name(name.to_owned()))?;
            let mut found = false;
            for qtype in &types {
                let explained = self.explain(&view, &forwarder, &complete, *qtype).await;
                found |= !explained.records.is_empty();
                all.push(explained);
            }
            if found {
                break;
            }
        }
        Ok((task, all))
    }

    async fn explain(
        &self,
        view: &TaskView,
        forwarder: &TaskForwarder,
        name: &RecordName,
        qtype: RecordType,
    ) -> Explained {
        let text = Text::of_name(name);
        let text = text.as_ref().map_or("", Text::as_str);
        let (answer, why) = resolve(view, text, qtype);
        let network = network_of(why);
        let mut explained = Explained {
            name: name.to_ascii(),
            qtype: qtype.to_string(),
            code: if answer == Answer::NxDomain { "NXDOMAIN" } else { "NOERROR" }.to_owned(),
            records: Vec::new(),
            network: network.map(|network| network.name.to_string()),
            why: why.to_string(),
            origins: network.map(|network| self.origins(network, text, &answer)).unwrap_or_default(),
            upstream: None,
        };
        let record = |kind: &dyn std::fmt::Display, data: String| format!("{name} {TTL} IN {kind} {data}");
        match answer {
            Answer::Addresses(addresses) => {
                let kind = |v4: bool| if v4 { "A" } else { "AAAA" };
                let of = |a: &std::net::IpAddr| record(&kind(a.is_ipv4()), a.to_string());
                explained.records = addresses.iter().map(of).collect();
            }
            Answer::Ptr(target) => explained.records = vec![record(&"PTR", format!("{target}."))],
            Answer::Services(places) => {
                let of = |p: &Place<'_>| record(&"SRV", format!("0 {} {} {}.", p.weight, p.port, p.target));
                explained.records = places.iter().map(of).collect();
            }
            Answer::NoData | Answer::NxDomain => {}
            Answer::Forward => match forwarder.look_up(name, qtype).await {
                Some(outside) => {
                    (explained.code, explained.records) = (outside.code, outside.records);
                    explained.upstream = Some(match outside.by {
                        Some(server) => format!("{server}, asked {}", outside.place),
                        None => "what a name server answered before, and is right still".to_owned(),
                    });
                }
                None => {
                    explained.code = "no answer".to_owned();
                    let servers: Vec<_> = forwarder.servers().iter().map(ToString::to_string).collect();
                    explained.upstream = Some(match servers.is_empty() {
                        true => "no name server is known on this node".to_owned(),
                        false => format!("none of {} answered", servers.join(", ")),
                    });
                }
            },
        }
        explained
    }

    fn origins(&self, network: &NetworkNames, name: &str, answer: &Answer<'_>) -> Vec<String> {
        let view = self.view();
        let Some(decided) = view.networks.values().find(|n| n.name == network.name) else {
            return Vec::new();
        };
        let (endpoints, _) = self.endpoints();
        let suffix = format!(".{}", network.name.as_str().to_ascii_lowercase());
        let name = match answer {
            Answer::Ptr(target) => target.to_ascii_lowercase(),
            _ => name.to_owned(),
        };
        let mut name = name.as_str();
        while let Some((_, rest)) = name.split_once('.').filter(|(label, _)| label.starts_with('_')) {
            name = rest;
        }
        let of = |name| origins(decided, view.services.values(), &endpoints, name);
        match name.strip_suffix(&suffix).map(of) {
            Some(found) if !found.is_empty() => found,
            _ => of(name),
        }
    }
}

fn network_of(why: Why<'_>) -> Option<&NetworkNames> {
    match why {
        Why::NameOf(n) | Why::AddressOn(n) | Why::PortOn(n) | Why::Below(n) | Why::SubnetOf(n) => Some(n),
        Why::Local | Why::Internal | Why::SingleLabel | Why::Outside => None,
    }
}

/// The names that a resolver asks for, in its order (resolv.conf(5), `ndots`).
fn candidates(name: &str, dns: &TaskDns) -> Vec<String> {
    if name.ends_with('.') {
        return vec![name.to_owned()];
    }
    let dots = name.bytes().filter(|b| *b == b'.').count();
    let as_it_is = std::iter::once(name.to_owned());
    let searched = dns.search.iter().map(|domain| format!("{name}.{domain}"));
    match dots >= usize::from(ndots(&dns.options).unwrap_or(1)) {
        true => as_it_is.chain(searched).collect(),
        false => searched.chain(as_it_is).collect(),
    }
}

/// The view and the way outside of a task's name server.
pub(crate) type NameServer = (Arc<TaskView>, Arc<TaskForwarder>);

#[cfg(test)]
mod tests {
    use super::*;

    fn dns(search: &[&str], options: &[&str]) -> TaskDns {
        TaskDns {
            search: search.iter().map(|s| s.parse().unwrap()).collect(),
            options: options.iter().map(|o| o.parse().unwrap()).collect(),
            ..TaskDns::default()
        }
    }

    fn node() -> NodeResolver {
        let words = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect();
        NodeResolver {
            search: words(&["corp.example", "not a domain"]),
            options: words(&["edns0", "odd"]),
            ..Default::default()
        }
    }

    #[test]
    fn what_is_not_asked_for_is_as_on_the_node() {
        assert_eq!(settings(&TaskDns::default(), &node()), dns(&["corp.example"], &["edns0", "ndots:0"]));
        assert_eq!(settings(&dns(&["."], &[]), &node()), dns(&[], &["edns0", "ndots:0"]));
        assert_eq!(
            settings(&dns(&["lab.example"], &["ndots:2"]), &node()),
            dns(&["lab.example"], &["ndots:2"])
        );
        assert_eq!(
            settings(&dns(&[], &["rotate"]), &NodeResolver::default()),
            dns(&[], &["rotate", "ndots:0"])
        );
    }

    #[test]
    fn resolvers_ask_in_this_order() {
        let ask = |name, search: &[&str], option| candidates(name, &dns(search, &[option]));
        assert_eq!(ask("web", &["a", "b."], "ndots:0"), ["web", "web.a", "web.b."]);
        assert_eq!(ask("web", &["a"], "ndots:1"), ["web.a", "web"]);
        assert_eq!(ask("web.prod", &["a"], "ndots:1"), ["web.prod", "web.prod.a"]);
        assert_eq!(ask("web.", &["a"], "ndots:1"), ["web."]);
    }
}
