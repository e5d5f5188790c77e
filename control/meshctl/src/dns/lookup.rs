//! `meshctl dns lookup`.

use anyhow::{Context as _, Result};
use mesh_api::v1::{self, ExplainNameRequest};
use serde::Serialize;

use crate::{
    context::Context,
    daemon::answer,
    elsewhere,
    name::reference,
    output::{Table, list},
};

/// Show what a task of this node would be answered, and why
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshctl dns lookup --from web.1 db                    as a program in the task that connects to db
  meshctl dns lookup --from web.1 --type SRV _http._tcp.web
  meshctl dns lookup --from web.1 10.10.3.7             the name of an address
  meshctl --format json dns lookup --from web.1 example.com.

One line for each question that the task's resolver would send, search domains included, up to the first
that finds something; a final dot says that the name is complete. Questions that leave the node for a task
leave it here too.")]
pub struct Args {
    /// The task that asks: name, id, namespace or pid
    #[arg(long, value_name = "TASK", value_parser = reference)]
    from: String,
    /// Record type, for example SRV [default: A and AAAA; PTR for an address]
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// Name or address
    #[arg(value_name = "NAME", value_parser = reference)]
    name: String,
}

/// What the task would be answered.
#[derive(Debug, Serialize)]
struct Report {
    task: String,
    lookups: Vec<Lookup>,
}

/// One question and its answer.
#[derive(Debug, Serialize)]
struct Lookup {
    /// The name, complete.
    name: String,
    #[serde(rename = "type")]
    kind: String,
    /// `NOERROR`, `NXDOMAIN` and so on; `no answer`.
    code: String,
    /// As in a zone file.
    records: Vec<String>,
    /// The network that decides; `null` when none does.
    network: Option<String>,
    /// The rule.
    why: String,
    /// The services and tasks that have the name.
    origins: Vec<String>,
    /// Who answered outside; `null` when nobody was asked.
    upstream: Option<String>,
}

impl From<v1::Lookup> for Lookup {
    fn from(lookup: v1::Lookup) -> Self {
        let optional = |text: String| Some(text).filter(|text| !text.is_empty());
        Self {
            name: lookup.name,
            kind: lookup.r#type,
            code: lookup.code,
            records: lookup.records,
            network: optional(lookup.network),
            why: lookup.why,
            origins: lookup.origins,
            upstream: optional(lookup.upstream),
        }
    }
}

impl Lookup {
    /// What the records say, without what the question says already.
    fn answer(&self) -> String {
        if self.records.is_empty() {
            return if self.code == "NOERROR" { "(nothing)".to_owned() } else { "-".to_owned() };
        }
        let short = |record: &String| {
            let words: Vec<&str> = record.split_whitespace().collect();
            match words.as_slice() {
                [_, _, _, kind, data @ ..] if *kind == self.kind => data.join(" "),
                [_, _, _, rest @ ..] => rest.join(" "),
                _ => record.clone(),
            }
        };
        list(self.records.iter().map(short))
    }

    fn because(&self) -> String {
        let first = [Some(&self.why), self.upstream.as_ref()].into_iter().flatten();
        first.chain(&self.origins).cloned().collect::<Vec<_>>().join("; ")
    }
}

/// Asks the daemon.
pub async fn run(args: &Args, context: &Context) -> Result<()> {
    let what = || format!("cannot look up {} for task {}", args.name, args.from);
    let daemon = context.daemon().await?;
    let request = ExplainNameRequest {
        task: args.from.clone(),
        name: args.name.clone(),
        r#type: args.kind.clone().unwrap_or_default(),
    };
    let answered = match answer(daemon.local().explain_name(request)).await {
        Err(failure) => return Err(elsewhere::told(&daemon, &args.from, failure).await).with_context(what),
        Ok(answered) => answered,
    };
    let lookups = answered.lookups.into_iter().map(Lookup::from).collect();
    context.show(&Report { task: answered.task, lookups }, |report| {
        let mut table = Table::new(&["NAME", "TYPE", "STATUS", "ANSWER", "WHY"]);
        for lookup in &report.lookups {
            let (answer, because) = (lookup.answer(), lookup.because());
            table.row([lookup.name.clone(), lookup.kind.clone(), lookup.code.clone(), answer, because]);
        }
        table.render()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(records: &[&str], code: &str) -> Lookup {
        Lookup {
            name: "web.".to_owned(),
            kind: "A".to_owned(),
            code: code.to_owned(),
            records: records.iter().map(|r| (*r).to_owned()).collect(),
            network: None,
            why: "a name on network prod".to_owned(),
            origins: vec!["task web1".to_owned()],
            upstream: None,
        }
    }

    #[test]
    fn answers_are_short() {
        let two = ["web. 5 IN A 10.10.3.2", "web. 5 IN CNAME x."];
        assert_eq!(lookup(&two, "NOERROR").answer(), "10.10.3.2, CNAME x.");
        assert_eq!(lookup(&[], "NOERROR").answer(), "(nothing)");
        assert_eq!(lookup(&[], "NXDOMAIN").answer(), "-");
        assert_eq!(lookup(&[], "NXDOMAIN").because(), "a name on network prod; task web1");
    }
}
