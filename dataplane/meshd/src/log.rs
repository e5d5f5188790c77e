//! The daemon's log: where it goes, in which form, and what is in it, which may change while the daemon runs.

mod journal;
mod request;

use std::{
    io::IsTerminal,
    os::linux::fs::MetadataExt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use tracing::info;
use tracing_subscriber::{EnvFilter, Layer, Registry, layer::SubscriberExt, reload, util::SubscriberInitExt};

use self::journal::Journal;
pub use self::request::{change, status};
use crate::config::LogFormat;

/// Where journald takes messages of its own protocol.
const JOURNAL: &str = "/run/systemd/journal/socket";

/// What is logged, and where to. Clones are handles on the same.
#[derive(Clone)]
pub struct Log {
    shared: Arc<Shared>,
}

struct Shared {
    filter: reload::Handle<EnvFilter, Registry>,
    place: &'static str,
    journal: Option<Arc<Journal>>,
    state: Mutex<State>,
}

/// What is logged: as configured, or as somebody wanted it meanwhile.
#[derive(Debug)]
struct State {
    configured: String,
    meanwhile: Option<Meanwhile>,
    /// Grows with each wish, so that the end of one does not end the next.
    wishes: u64,
}

#[derive(Debug)]
struct Meanwhile {
    directives: String,
    until: Option<Instant>,
}

/// How things stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// What is logged now.
    pub in_force: String,
    /// What the configuration says.
    pub configured: String,
    /// After this time the configuration counts again; none: until the next start, or it counts already.
    pub left: Option<Duration>,
    /// `journald`, `stderr, text` or `stderr, JSON`.
    pub place: &'static str,
    /// Messages that journald was too slow for.
    pub lost: u64,
}

impl Log {
    /// Begins to log what `directives` say.
    pub fn start(directives: &str, format: LogFormat) -> Result<Self> {
        let (filter, handle) = reload::Layer::new(filter(directives)?);
        let journal = match format {
            LogFormat::Auto if stderr_is_the_journal() => Journal::open(JOURNAL.as_ref()).ok(),
            LogFormat::Journald => Some(Journal::open(JOURNAL.as_ref()).context(
                "log_format is \"journald\", which does not answer; use \"text\" where there is none",
            )?),
            _ => None,
        };
        let journal = journal.map(Arc::new);
        let stderr = || tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
        let (place, layer) = match (&journal, format) {
            (Some(journal), _) => ("journald", journal::layer(journal.clone()).boxed()),
            (None, LogFormat::Json) => ("stderr, JSON", stderr().json().flatten_event(true).boxed()),
            (None, _) => ("stderr, text", stderr().with_ansi(std::io::stderr().is_terminal()).boxed()),
        };
        tracing_subscriber::registry().with(filter).with(layer).try_init()?;
        let state = State { configured: directives.to_owned(), meanwhile: None, wishes: 0 };
        Ok(Self { shared: Arc::new(Shared { filter: handle, place, journal, state: Mutex::new(state) }) })
    }

    /// From now on each message tells journald which node it is of.
    pub fn of_node(&self, node: &str) {
        if let Some(journal) = &self.shared.journal {
            journal.of_node(node);
        }
    }

    /// Follows the configuration. What somebody wanted meanwhile ends if the configuration has changed in this; an error
    /// changes nothing.
    pub fn configure(&self, directives: &str) -> Result<()> {
        let mut state = self.shared.state();
        if state.configured == directives {
            return Ok(());
        }
        self.shared.filter.reload(filter(directives)?).context("change what is logged")?;
        state.wishes += 1;
        state.meanwhile = None;
        directives.clone_into(&mut state.configured);
        Ok(())
    }

    /// Logs what `directives` say, for a time or until the next start; an error changes nothing. Call it within a tokio
    /// runtime.
    pub fn change(&self, directives: &str, time: Option<Duration>) -> Result<()> {
        let mut state = self.shared.state();
        // Both are told, whichever level is in force after it.
        info!(log = directives, seconds = time.map(|time| time.as_secs()), "what is logged changes");
        self.shared.filter.reload(filter(directives)?).context("change what is logged")?;
        state.wishes += 1;
        let until = time.and_then(|time| Instant::now().checked_add(time));
        state.meanwhile = Some(Meanwhile { directives: directives.to_owned(), until });
        if let Some(time) = time {
            let (log, wish) = (self.clone(), state.wishes);
            tokio::spawn(async move {
                tokio::time::sleep(time).await;
                log.end(Some(wish));
            });
        }
        Ok(())
    }

    /// Logs what the configuration says.
    pub fn reset(&self) {
        self.end(None);
    }

    /// What is logged.
    pub fn logged(&self) -> Logged {
        let state = self.shared.state();
        let meanwhile = state.meanwhile.as_ref();
        let now = Instant::now();
        Logged {
            in_force: meanwhile.map_or(&state.configured, |meanwhile| &meanwhile.directives).clone(),
            configured: state.configured.clone(),
            left: meanwhile.and_then(|m| m.until).map(|until| until.saturating_duration_since(now)),
            place: self.shared.place,
            lost: self.shared.journal.as_ref().map_or(0, |journal| journal.lost()),
        }
    }

    /// Ends what was wanted meanwhile: that wish, or any.
    fn end(&self, wish: Option<u64>) {
        let mut state = self.shared.state();
        if state.meanwhile.is_none() || wish.is_some_and(|wish| wish != state.wishes) {
            return;
        }
        // The configuration's filter was in force once.
        if let Ok(filter) = filter(&state.configured)
            && self.shared.filter.reload(filter).is_ok()
        {
            state.wishes += 1;
            state.meanwhile = None;
            info!(log = state.configured, "what is logged is as configured again");
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn filter(directives: &str) -> Result<EnvFilter> {
    // What the configuration says of these comes later and wins. Their `info` and `warn` are of their own workings.
    let all = format!("openraft=warn,netlink_proto=error,{directives}");
    EnvFilter::try_new(all).with_context(|| format!("log filter {directives:?}"))
}

/// Whether standard error is what the variable names; children of a service inherit it whatever theirs is.
fn stderr_is_the_journal() -> bool {
    let named = std::env::var("JOURNAL_STREAM").ok();
    let stream = std::fs::metadata("/proc/self/fd/2").ok();
    named.zip(stream).is_some_and(|(named, it)| named == format!("{}:{}", it.st_dev(), it.st_ino()))
}
