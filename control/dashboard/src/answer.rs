//! Answers, each with the headers that keep the page to itself.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use futures::Stream;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Response, StatusCode,
    body::Frame,
    header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, RETRY_AFTER, SET_COOKIE},
};
use serde_json::json;

/// What every answer is.
pub(crate) type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// Only what comes from here is run, drawn or asked; no text becomes markup or a script (trusted types); no other page may
/// put this one into a frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'";

const FIXED: [(&str, &str); 7] = [
    ("content-security-policy", POLICY),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("permissions-policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
];

fn answer(status: StatusCode, kind: &'static str, body: UnsyncBoxBody<Bytes, Infallible>) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    for (name, value) in FIXED {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

fn whole(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    answer(status, kind, Full::new(body.into()).boxed_unsync())
}

/// JSON that is there already.
pub(crate) fn json_text(text: String) -> Answer {
    whole(StatusCode::OK, "application/json", text)
}

/// A refusal in words.
pub(crate) fn refusal(status: StatusCode, words: &str) -> Answer {
    whole(status, "application/json", json!({"error": words}).to_string())
}

/// A refusal of whoever asked too often.
pub(crate) fn wait(words: &str, time: Duration) -> Answer {
    let mut answer = refusal(StatusCode::TOO_MANY_REQUESTS, words);
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(time.as_secs().max(1)));
    answer
}

/// A file of the page; the browser asks each time whether it is another one.
pub(crate) fn file(kind: &'static str, body: &'static [u8], tag: &str, known: bool) -> Answer {
    let (status, body) = if known { (StatusCode::NOT_MODIFIED, &b""[..]) } else { (StatusCode::OK, body) };
    let mut answer = whole(status, kind, Bytes::from_static(body));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Ok(tag) = HeaderValue::from_str(tag) {
        answer.headers_mut().insert(ETAG, tag);
    }
    answer
}

/// Server-sent events.
pub(crate) fn events(parts: impl Stream<Item = Bytes> + Send + 'static) -> Answer {
    use futures::StreamExt;
    let frames = parts.map(|part| Ok::<_, Infallible>(Frame::data(part)));
    answer(StatusCode::OK, "text/event-stream", StreamBody::new(frames).boxed_unsync())
}

/// The same answer with a cookie that scripts cannot read and that goes to this page alone; without a value it is forgotten.
pub(crate) fn with_cookie(mut answer: Answer, name: &str, value: Option<&str>) -> Answer {
    let (value, age) = value.map_or(("", "; Max-Age=0"), |value| (value, ""));
    let cookie = format!("{name}={value}; Path=/; HttpOnly; Secure; SameSite=Strict{age}");
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        answer.headers_mut().insert(SET_COOKIE, cookie);
    }
    answer
}
