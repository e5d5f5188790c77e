//! Who asks what: files for everybody, views for sessions, changes for sessions that may write.

mod live;

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use http_body_util::BodyExt;
use hyper::{
    Method, Request, StatusCode,
    body::Incoming,
    header::{COOKIE, HOST, IF_NONE_MATCH, ORIGIN},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::json;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    Change,
    answer::{self, Answer, refusal},
    assets,
    board::Query,
    guesses::Guesses,
    hub::Hub,
    session::{Granted, Sessions, same},
    views::view,
};

/// Bytes of the largest request.
const LARGEST: usize = 4096;
/// Bytes of a larger one that are read and thrown away: closing on what has not been read resets the connection, and the
/// answer is lost with it.
const DISCARDED: usize = 1 << 20;
/// How long its body may take.
const BODY: Duration = Duration::from_secs(10);
/// What changes name the session's word in.
const CSRF: &str = "x-mesh-csrf";
/// What to do without a session.
const NO_SESSION: &str =
    "no session: run `meshctl dashboard` on a manager and open the address that it prints";

/// What all connections share.
pub(crate) struct App {
    pub sessions: Mutex<Sessions>,
    pub guesses: Mutex<Guesses>,
    pub hub: Hub,
    /// The cookie's name: other managers behind the same host name have others.
    pub cookie: String,
    pub stop: CancellationToken,
}

/// What is known of a connection.
pub(crate) struct Connection {
    pub peer: IpAddr,
    /// A session has been shown on it.
    pub trusted: AtomicBool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Login {
    token: String,
}

/// The answer to a request.
pub(crate) async fn route(app: &Arc<App>, connection: &Connection, request: Request<Incoming>) -> Answer {
    let path = request.uri().path().to_owned();
    let of_api = path.strip_prefix("/api/");
    match (request.method().clone(), of_api) {
        (Method::GET | Method::HEAD, None) => file(&path, &request),
        (Method::GET, Some(call)) => look(app, connection, call, &request).await,
        (Method::POST, Some(call)) => {
            if !from_here(&request) {
                return refusal(StatusCode::FORBIDDEN, "this was asked by another page");
            }
            act(app, connection, call, request).await
        }
        _ => refusal(StatusCode::METHOD_NOT_ALLOWED, "files and views are read, changes are posted"),
    }
}

fn file(path: &str, request: &Request<Incoming>) -> Answer {
    let Some(asset) = assets::find(path) else {
        return refusal(StatusCode::NOT_FOUND, "there is no such file");
    };
    let tag = asset.tag();
    let known = request.headers().get(IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    answer::file(asset.kind, asset.body, &tag, known)
}

async fn look(app: &Arc<App>, connection: &Connection, call: &str, request: &Request<Incoming>) -> Answer {
    let Some(asked) = Asked::of(request.uri().query().unwrap_or("")) else {
        return refusal(StatusCode::BAD_REQUEST, "the question is malformed");
    };
    // A page that follows by itself is no sign of somebody who looks.
    let Some((id, granted)) = session(app, connection, request, !asked.stream) else {
        return refusal(StatusCode::UNAUTHORIZED, NO_SESSION);
    };
    if call == "session" {
        let board = app.hub.board().await;
        return answer::json_text(about(&granted, &board.model.cluster));
    }
    let Some(name) = call.strip_prefix("view/") else {
        return refusal(StatusCode::NOT_FOUND, "there is no such call");
    };
    if asked.stream {
        return live::stream(app, id, name.to_owned(), asked.query);
    }
    match view(&*app.hub.board().await, name, &asked.query) {
        Ok(text) => answer::json_text(text),
        Err(nothing) => refusal(StatusCode::NOT_FOUND, &nothing.0),
    }
}

async fn act(app: &Arc<App>, connection: &Connection, call: &str, request: Request<Incoming>) -> Answer {
    if call == "login" {
        return match read::<Login>(request).await {
            Ok(login) => enter(app, connection, &login.token).await,
            Err(answer) => answer,
        };
    }
    let Some((id, granted)) = session(app, connection, &request, true) else {
        return refusal(StatusCode::UNAUTHORIZED, NO_SESSION);
    };
    let word = request.headers().get(CSRF).and_then(|word| word.to_str().ok()).unwrap_or("");
    if !same(word, &granted.csrf) {
        return refusal(StatusCode::FORBIDDEN, "this was asked by another page");
    }
    match call {
        // That somebody is there is noted already.
        "alive" => answer::json_text("{}".to_owned()),
        "logout" => {
            lock(&app.sessions).leave(&id);
            answer::with_cookie(answer::json_text("{}".to_owned()), &app.cookie, None)
        }
        "change" if !granted.write => refusal(
            StatusCode::FORBIDDEN,
            "this session may only look; `meshctl dashboard --write` begins one that may change things",
        ),
        "change" => match read::<Change>(request).await {
            Ok(change) => make(app, change).await,
            Err(answer) => answer,
        },
        _ => refusal(StatusCode::NOT_FOUND, "there is no such call"),
    }
}

async fn enter(app: &App, connection: &Connection, token: &str) -> Answer {
    let now = Instant::now();
    let entered = lock(&app.sessions).enter(token, now);
    let Some((id, granted)) = entered else {
        if let Some(time) = lock(&app.guesses).wrong(connection.peer, now) {
            let seconds = time.as_secs().max(1);
            let words = format!("too many wrong logins from your address; wait {seconds} s");
            return answer::wait(&words, time);
        }
        warn!(peer = %connection.peer, "dashboard: wrong login");
        let words = "this login is wrong, was used before or is too old; run `meshctl dashboard` again";
        return refusal(StatusCode::UNAUTHORIZED, words);
    };
    connection.trusted.store(true, Ordering::Relaxed);
    info!(peer = %connection.peer, write = granted.write, "dashboard: session begins");
    let board = app.hub.board().await;
    let answer = answer::json_text(about(&granted, &board.model.cluster));
    answer::with_cookie(answer, &app.cookie, Some(&id))
}

async fn make(app: &App, change: Change) -> Answer {
    info!(?change, "dashboard: change");
    // In a task of its own: whoever hangs up leaves nothing half done.
    match app.hub.change(change).await {
        Ok(words) => answer::json_text(json!({ "done": words }).to_string()),
        Err(why) => refusal(StatusCode::CONFLICT, &why.0),
    }
}

fn about(granted: &Granted, cluster: &crate::Cluster) -> String {
    let Granted { write, csrf } = granted;
    let crate::Cluster { id, manager, meshd, .. } = cluster;
    json!({"write": write, "csrf": csrf, "cluster": id, "manager": manager, "meshd": meshd}).to_string()
}

/// The session that a request shows.
fn session<B>(
    app: &App,
    connection: &Connection,
    request: &Request<B>,
    used: bool,
) -> Option<(String, Granted)> {
    let cookies = request.headers().get_all(COOKIE).iter().filter_map(|cookies| cookies.to_str().ok());
    let mut pairs = cookies.flat_map(|cookies| cookies.split(';')).filter_map(|c| c.trim().split_once('='));
    let (_, id) = pairs.find(|(name, _)| *name == app.cookie)?;
    let granted = lock(&app.sessions).look(id, used, Instant::now())?;
    connection.trusted.store(true, Ordering::Relaxed);
    Some((id.to_owned(), granted))
}

/// Browsers say which page asks; it has to be this one.
fn from_here(request: &Request<Incoming>) -> bool {
    let headers = request.headers();
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if text("sec-fetch-site").is_some_and(|site| site != "same-origin") {
        return false;
    }
    let host = request.uri().authority().map(|a| a.as_str()).or_else(|| text(HOST.as_str()));
    match text(ORIGIN.as_str()) {
        Some(origin) => origin.strip_prefix("https://") == host,
        None => true,
    }
}

async fn read<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, Answer> {
    let body = match timeout(BODY, collect(request.into_body())).await {
        Ok(Ok(Some(body))) => body,
        Ok(Ok(None)) => return Err(refusal(StatusCode::PAYLOAD_TOO_LARGE, "the request is too large")),
        Ok(Err(error)) => {
            debug!(%error, "dashboard: a request was cut off");
            return Err(refusal(StatusCode::BAD_REQUEST, "the request was cut off"));
        }
        Err(_) => return Err(refusal(StatusCode::REQUEST_TIMEOUT, "the request did not arrive in time")),
    };
    serde_json::from_slice(&body)
        .map_err(|error| refusal(StatusCode::BAD_REQUEST, &format!("the request is not understood: {error}")))
}

/// The whole body; none if it is too large.
async fn collect(mut body: Incoming) -> hyper::Result<Option<Vec<u8>>> {
    let (mut read, mut kept) = (0, Vec::new());
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        read += data.len();
        if read <= LARGEST {
            kept.extend_from_slice(&data);
        } else if read > DISCARDED {
            break;
        }
    }
    Ok((read <= LARGEST).then_some(kept))
}

pub(crate) fn lock<T>(held: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What stands behind a `?`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    query: Query,
    stream: bool,
}

impl Asked {
    fn of(text: &str) -> Option<Self> {
        let mut asked = Self { query: Query { limit: 100, ..Query::default() }, stream: false };
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=')?;
            let value = decoded(value)?;
            let query = &mut asked.query;
            match key {
                "q" => query.filter = value,
                "sort" => match value.strip_prefix('-') {
                    Some(column) => (query.sort, query.descending) = (column.to_owned(), true),
                    None => query.sort = value,
                },
                "offset" => query.offset = value.parse().ok()?,
                "limit" => query.limit = value.parse().ok()?,
                "stream" => asked.stream = value == "1",
                _ => return None,
            }
        }
        Some(asked)
    }
}

/// Without `%`.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_read() {
        let asked = Asked::of("q=a%20%C3%A4+%25&sort=-rate&offset=7&limit=3&stream=1").unwrap();
        let query =
            Query { filter: "a ä %".into(), sort: "rate".into(), descending: true, offset: 7, limit: 3 };
        assert_eq!(asked, Asked { query, stream: true });
        assert_eq!(Asked::of("").unwrap().query.limit, 100);
        for bad in ["q", "q=%", "q=%g0", "q=%ff", "offset=-1", "offset=x", "limit=1e9", "x=1"] {
            assert_eq!(Asked::of(bad), None, "{bad}");
        }
    }
}
