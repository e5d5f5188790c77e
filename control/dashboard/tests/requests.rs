//! What no page would ask, and what holds the page together: headers, guesses, foreign pages, too many of everything.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use mesh_dashboard::Limits;
use support::{Sample, Served, client::Client};

const CHANGE: &str = r#"{"do":"unpublish","service":"serviceid0","port":"8080/tcp"}"#;

fn served(limits: Limits) -> Served {
    Served::new(Sample::new(3, 3, 2), limits)
}

#[test]
fn only_sessions_see_anything_and_only_some_change_it() {
    let served = served(Limits::default());
    let addr = served.dashboard.addr();
    served.runtime.block_on(async {
        let mut client = Client::new(addr).await;
        let page = client.ask("/", &[], None).await;
        let headers = page.headers().clone();
        page.into_body().collect().await.unwrap();
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert!(policy.contains("frame-ancestors 'none'") && policy.contains("require-trusted-types-for"));
        assert_eq!(headers["x-content-type-options"], "nosniff");
        let tag = headers["etag"].to_str().unwrap();
        let again = client.ask("/", &[("if-none-match", tag)], None).await;
        assert_eq!(again.status(), 304);
        again.into_body().collect().await.unwrap();
        for path in ["/../Cargo.toml", "/assets/app.js", "/%2e%2e/x", "//"] {
            assert_eq!(client.json(path, &[], None).await.0, 404, "{path}");
        }
        for path in ["/api/session", "/api/view/tasks", "/api/view/tasks?stream=1", "/api/nonsense"] {
            let (code, said) = client.json(path, &[("cookie", "__Host-meshd-test=guessed")], None).await;
            assert_eq!(code, 401, "{path}");
            assert!(said["error"].as_str().unwrap().contains("meshctl dashboard"), "{said}");
        }
        assert_eq!(client.json("/api/change", &[], Some(CHANGE)).await.0, 401);

        let (cookie, csrf) = client.login(&served.dashboard.login(false)).await;
        let mine = [("cookie", cookie.as_str()), ("x-mesh-csrf", csrf.as_str())];
        let (code, said) = client.json("/api/change", &mine, Some(CHANGE)).await;
        assert_eq!(code, 403);
        assert!(said["error"].as_str().unwrap().contains("--write"), "{said}");
        for path in ["/api/view/tasks?limit=x", "/api/view/tasks?q=%", "/api/view/tasks?nonsense=1"] {
            assert_eq!(client.json(path, &mine, None).await.0, 400, "{path}");
        }
        assert_eq!(client.json("/api/view/service/none", &mine, None).await.0, 404);

        let (cookie, csrf) = client.login(&served.dashboard.login(true)).await;
        let (cookie, csrf) = (("cookie", cookie.as_str()), ("x-mesh-csrf", csrf.as_str()));
        let foreign = ("origin", "https://elsewhere.example");
        for headers in [
            &[cookie][..],
            &[cookie, ("x-mesh-csrf", "guessed")],
            &[cookie, csrf, foreign],
            &[cookie, csrf, ("sec-fetch-site", "cross-site")],
        ] {
            assert_eq!(client.json("/api/change", headers, Some(CHANGE)).await.0, 403, "{headers:?}");
        }
        assert!(served.sample.changes.lock().unwrap().is_empty());
        for nonsense in ["", "[]", "{}", r#"{"do":"format"}"#, r#"{"do":"drain","task":"x","more":1}"#] {
            let (code, said) = client.json("/api/change", &[cookie, csrf], Some(nonsense)).await;
            assert_eq!((code, said["error"].is_string()), (400, true), "{nonsense}");
        }
        let large = format!(r#"{{"do":"drain","task":"{}"}}"#, "x".repeat(100_000));
        assert_eq!(client.json("/api/change", &[cookie, csrf], Some(&large)).await.0, 413);
        let mut client = Client::new(addr).await;
        assert_eq!(client.json("/api/change", &[cookie, csrf], Some(CHANGE)).await.0, 200);
        assert_eq!(client.json("/api/logout", &[cookie, csrf], Some("{}")).await.0, 200);
        assert_eq!(client.json("/api/session", &[cookie], None).await.0, 401);
    });
}

#[test]
fn guesses_are_bounded_and_lock_nobody_out() {
    let served = served(Limits::default());
    served.runtime.block_on(async {
        let mut client = Client::new(served.dashboard.addr()).await;
        let mut codes = Vec::new();
        for n in 0..40 {
            let guess = format!(r#"{{"token":"guess{n}"}}"#);
            let answer = client.ask("/api/login", &[], Some(&guess)).await;
            let (code, wait) = (answer.status().as_u16(), answer.headers().get("retry-after").cloned());
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            if code == 429 {
                assert!(wait.is_some());
                assert!(String::from_utf8_lossy(&body).contains("too many wrong logins"));
            }
            codes.push(code);
        }
        assert_eq!(codes[..10], [401; 10]);
        assert!(codes.iter().filter(|code| **code == 429).count() >= 20, "{codes:?}");
        client.login(&served.dashboard.login(false)).await;
    });
}

/// The first thing that a stream says.
async fn first(body: &mut Incoming) -> String {
    let frame = body.frame().await.unwrap().unwrap();
    String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap()
}

#[test]
fn a_thousand_dashboards_are_bounded() {
    let limits = Limits { idle: Duration::from_secs(3600), ..Limits::default() };
    let served = served(limits);
    let addr = served.dashboard.addr();
    served.runtime.block_on(async {
        // A thousand pages of many people, each with its stream: some follow live, the others are told to ask now and then.
        let (mut live, mut refused) = (Vec::new(), 0);
        let mut cookies = Vec::new();
        for _ in 0..50 {
            let mut client = Client::new(addr).await;
            cookies.push(client.login(&served.dashboard.login(false)).await.0);
        }
        for n in 0..400 {
            let mut client = Client::new(addr).await;
            let cookie = &cookies[n % cookies.len()];
            for path in ["/api/view/overview", "/api/view/tasks"] {
                assert_eq!(client.json(path, &[("cookie", cookie)], None).await.0, 200);
            }
            let path = "/api/view/overview?stream=1";
            let answer = client.ask(path, &[("cookie", cookie)], None).await;
            match answer.status().as_u16() {
                200 => live.push((client, answer.into_body())),
                503 => refused += 1,
                other => panic!("{other}"),
            }
        }
        assert_eq!((live.len(), refused), (limits.streams, 400 - limits.streams));
        // They cost one question a second, however many there are.
        let asked = || served.sample.asked.load(std::sync::atomic::Ordering::Relaxed);
        let (before, begun) = (asked(), std::time::Instant::now());
        for (_, body) in &mut live {
            assert!(first(body).await.starts_with("event: view\ndata: {"));
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        let most = begun.elapsed().as_millis() / 900 + 2;
        assert!(u128::from(asked() - before) <= most, "{} questions", asked() - before);
        // A thousand logins: as many sessions as there may be, and the newest is one of them.
        for _ in 0..1000 {
            served.dashboard.login(false);
        }
        let mut client = Client::new(addr).await;
        let (cookie, _) = client.login(&served.dashboard.login(false)).await;
        drop(live);
        // Who closes gives the place back.
        let path = "/api/view/overview?stream=1";
        for tries in 0.. {
            let mut client = Client::new(addr).await;
            if client.ask(path, &[("cookie", &cookie)], None).await.status() == 200 {
                break;
            }
            assert!(tries < 600, "no place is given back");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
}

#[test]
fn a_stream_ends_with_its_session() {
    let served = served(Limits { idle: Duration::from_secs(2), ..Limits::default() });
    served.runtime.block_on(async {
        let mut client = Client::new(served.dashboard.addr()).await;
        let (cookie, _) = client.login(&served.dashboard.login(false)).await;
        let path = "/api/view/overview?stream=1";
        let mut body = client.ask(path, &[("cookie", &cookie)], None).await.into_body();
        let mut last = first(&mut body).await;
        assert!(last.starts_with("event: view"), "{last}");
        while let Some(frame) = body.frame().await {
            last = String::from_utf8(frame.unwrap().into_data().unwrap().to_vec()).unwrap();
        }
        assert!(last.starts_with("event: ended"), "{last}");
    });
}
