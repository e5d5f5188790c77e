//! The daemon's log: to journald where systemd started us with it, to standard error otherwise.

use std::io::IsTerminal;

use anyhow::{Context, Result};
use tracing_subscriber::{EnvFilter, Registry, layer::SubscriberExt, reload, util::SubscriberInitExt};

/// What is logged; may change while the daemon runs.
#[derive(Debug)]
pub struct LogFilter(reload::Handle<EnvFilter, Registry>);

impl LogFilter {
    /// Begins to log what `directives` say.
    pub fn start(directives: &str) -> Result<Self> {
        let (filter, handle) = reload::Layer::new(filter(directives)?);
        let registry = tracing_subscriber::registry().with(filter);
        let journald = std::env::var_os("JOURNAL_STREAM").and_then(|_| tracing_journald::layer().ok());
        match journald {
            Some(layer) => registry.with(layer).try_init()?,
            None => registry
                .with(
                    tracing_subscriber::fmt::layer()
                        .with_writer(std::io::stderr)
                        .with_ansi(std::io::stderr().is_terminal()),
                )
                .try_init()?,
        }
        Ok(Self(handle))
    }

    /// From now on logs what `directives` say; an error changes nothing.
    pub fn change(&self, directives: &str) -> Result<()> {
        self.0.reload(filter(directives)?).context("change what is logged")
    }
}

fn filter(directives: &str) -> Result<EnvFilter> {
    // What the configuration says of these comes later and wins. Their `info` and `warn` are of their own workings.
    let all = format!("openraft=warn,netlink_proto=error,{directives}");
    EnvFilter::try_new(all).with_context(|| format!("log filter {directives:?}"))
}
