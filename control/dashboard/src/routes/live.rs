//! A view that is told again whenever it is another one.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::stream;
use hyper::StatusCode;
use tokio::time::sleep;

use super::{App, lock};
use crate::{
    answer::{self, Answer, refusal},
    board::Query,
    views::view,
};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// Something is said at least as often, so that whoever has gone is found out.
const SIGN: Duration = Duration::from_secs(15);

struct Live {
    app: Arc<App>,
    session: String,
    path: String,
    query: Query,
    /// What was told last, and when something was.
    told: String,
    last: Instant,
    begun: bool,
    over: bool,
}

impl Drop for Live {
    fn drop(&mut self) {
        lock(&self.app.sessions).close_stream(&self.session);
    }
}

/// Follows `path` for as long as the session lasts. Nothing waits to be read: who is slow is told the newest next.
pub(super) fn stream(app: &Arc<App>, session: String, path: String, query: Query) -> Answer {
    if lock(&app.sessions).open_stream(&session).is_err() {
        let words = "so many pages of this dashboard are open; close some";
        return refusal(StatusCode::SERVICE_UNAVAILABLE, words);
    }
    let now = Instant::now();
    let told = String::new();
    let live = Live { app: app.clone(), session, path, query, told, last: now, begun: false, over: false };
    answer::events(stream::unfold(live, |mut live| async move {
        let part = live.next().await?;
        Some((part, live))
    }))
}

impl Live {
    async fn next(&mut self) -> Option<Bytes> {
        if self.over {
            return None;
        }
        loop {
            if self.begun && self.app.stop.clone().run_until_cancelled(sleep(LOOK)).await.is_none() {
                return None;
            }
            self.begun = true;
            if lock(&self.app.sessions).look(&self.session, false, Instant::now()).is_none() {
                return Some(self.last_word("ended", "\"the session has ended\""));
            }
            match view(&*self.app.hub.board().await, &self.path, &self.query) {
                Ok(text) if text != self.told => {
                    self.last = Instant::now();
                    let part = event("view", &text);
                    self.told = text;
                    return Some(part);
                }
                Ok(_) if self.last.elapsed() < SIGN => {}
                Ok(_) => {
                    self.last = Instant::now();
                    return Some(Bytes::from_static(b": still here\n\n"));
                }
                Err(nothing) => {
                    let words = serde_json::Value::from(nothing.0).to_string();
                    return Some(self.last_word("gone", &words));
                }
            }
        }
    }

    fn last_word(&mut self, kind: &str, json: &str) -> Bytes {
        self.over = true;
        event(kind, json)
    }
}

/// JSON has no ends of lines.
fn event(kind: &str, json: &str) -> Bytes {
    Bytes::from(format!("event: {kind}\ndata: {json}\n\n"))
}
