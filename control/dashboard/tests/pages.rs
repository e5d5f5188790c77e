//! The pages in a real browser, over made-up clusters.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::time::Duration;

use mesh_dashboard::{Change, Limits, Task};
use serde_json::{Value, json};
use support::{Sample, Served, browser::Browser};

/// What the browser has fetched since the page was opened, in bytes as they travel, and how many files.
const FETCHED: &str = "const all = [...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]
    .filter((e) => !e.name.includes('stream=1'));
    return {bytes: all.reduce((sum, e) => sum + e.transferSize, 0), files: all.length, late: all.filter((e) => e.responseEnd === 0).length}";

/// Notes when the first figures are on the screen, in milliseconds since the page was asked for.
const FIRST_VIEW: &str = "new MutationObserver((_, watching) => {
    if (!document.querySelector('.tile .value')) return;
    watching.disconnect();
    requestAnimationFrame(() => requestAnimationFrame(() => { window.firstView = performance.now(); }));
}).observe(document, {childList: true, subtree: true})";

fn enter(served: &Served, browser: &Browser, write: bool) {
    browser.open("about:blank");
    browser.open(&served.login(write));
    browser.wait_text("h1", "Overview");
    browser.wait_text("#live", "Live");
}

fn text(browser: &Browser, selector: &str) -> String {
    let found =
        browser.script(&format!("return document.querySelector({})?.innerText ?? ''", json!(selector)));
    found.as_str().unwrap().to_owned()
}

#[test]
fn pages_lists_clicks_and_changes() {
    let served = Served::new(Sample::new(12, 8, 30), Limits::default());
    let browser = Browser::new();
    browser.resize(1280, 800);
    enter(&served, &browser, true);
    assert_eq!(
        browser.script("return location.hash"),
        json!("#/overview"),
        "the login does not stay in the address"
    );
    browser.wait_text(".tile", "240");
    let fetched = browser.script(FETCHED);
    assert!(fetched["bytes"].as_u64().unwrap() < 300_000, "{fetched}");
    assert!(fetched["files"].as_u64().unwrap() > 10, "{fetched}");
    browser.wait_text(".problems", "node-5 is down");

    // Live: figures move without anybody doing anything, and stand still while paused.
    let before = text(&browser, ".grid .tile .value");
    browser.wait(&format!("document.querySelector('.grid .tile .value').innerText !== {}", json!(before)));
    browser.click("#pause");
    browser.wait_text("#live", "Paused");
    browser.click("#pause");
    browser.wait_text("#live", "Live");

    // Each page by click.
    for (page, says) in [
        ("nodes", "node-12"),
        ("networks", "10.10.1.0/24"),
        ("services", "cache"),
        ("tasks", "api.2"),
        ("map", "Who talks to whom"),
        ("events", "create"),
    ] {
        browser.click(&format!("nav a[href='#/{page}']"));
        browser.wait_text("main", says);
        assert_eq!(
            browser.script("return document.querySelectorAll('nav [aria-current=page]').length"),
            json!(1)
        );
    }
    browser.click("nav a[href='#/map']");
    browser.wait("document.querySelectorAll('.mapbox a').length >= 8 && document.querySelector('.rate').textContent.includes('B/s')");

    // A filter stands in the address; back and forth, and a link from elsewhere, lead to the same.
    browser.click("nav a[href='#/tasks']");
    browser.enter("#filter-tasks", "node:node-3 web");
    browser.wait_text(".count", "of 240 tasks");
    browser.wait("location.hash === '#/tasks?q=node%3Anode-3+web'");
    browser.click("nav a[href='#/nodes']");
    browser.wait_text("h1", "Nodes");
    browser.back();
    browser.wait("document.querySelector('#filter-tasks')?.value === 'node:node-3 web'");
    browser.enter("#filter-tasks", "x:y ((( %zz");
    browser.wait_text(".nothing", "No tasks fit this filter");
    browser.open(&format!("{}#/tasks?q=health:unhealthy", served.url()));
    browser.wait_text("tbody", "api.1");
    browser.wait_text(".count", "1 of 240 tasks");
    browser.open(&format!("{}#/nonsense", served.url()));
    browser.wait_text("h1", "No such page");

    // Orders: by name as people order, and by number with the largest first.
    browser.open(&format!("{}#/nodes", served.url()));
    browser.wait_text("tbody tr:nth-child(3)", "node-2");
    browser.click("th:nth-child(6) button");
    browser.wait("document.querySelector('th:nth-child(6)').getAttribute('aria-sort') === 'descending'");
    let tasks = "[...document.querySelectorAll('tbody td:nth-child(6)')].map((e) => Number(e.innerText))";
    browser.wait(&format!(
        "((all) => all.length === 12 && all.every((n, at) => !at || all[at - 1] >= n))({tasks})"
    ));

    // A service: its ports, its tasks' weights, a drain, each seen as it takes effect.
    browser.open(&format!("{}#/service/serviceid0", served.url()));
    browser.wait_text(".ports", "8080:80/tcp");
    browser.enter(".form input[name=port]", "9000:90");
    browser.click(".form button");
    browser.wait_text(".ports", "9000:90/tcp");
    browser.wait_text("#notes", "Published 9000:90");
    browser.enter(".form input[name=port]", "nonsense");
    browser.click(".form button");
    browser.wait_text("#notes", "is no port");
    browser.click("[aria-label='Unpublish 8080:80/tcp']");
    browser.wait_text("dialog", "Close port 8080:80/tcp of web");
    browser.click("dialog .quiet");
    browser.wait("!document.querySelector('dialog')");
    assert!(text(&browser, ".ports").contains("8080:80/tcp"), "cancelled");
    browser.click("[aria-label='Unpublish 8080:80/tcp']");
    browser.click("dialog .danger");
    browser.wait("!document.querySelector('.ports').innerText.includes('8080')");
    browser.enter("[aria-label='Weight of web.2']", "50");
    browser.click("[aria-label='Set the weight of web.2']");
    browser.wait("document.querySelector(\"[aria-label='Weight of web.2']\").getAttribute('value') === '50'");
    browser.click("[aria-label='Drain web.3']");
    browser.click("dialog .danger");
    browser.wait_text("tbody tr:nth-child(4)", "draining");
    browser.click("nav a[href='#/nodes']");
    browser.click("[aria-label='Drain node-2']");
    browser.click("dialog .danger");
    browser.wait("document.querySelector(\"[aria-label='Activate node-2']\")");
    let done: Vec<Change> = served.sample.changes.lock().unwrap().clone();
    let (web, id) = (|| "serviceid0".to_owned(), |n: u32| format!("taskid0x{n}"));
    assert_eq!(
        done,
        [
            Change::Publish { service: web(), port: "9000:90".into() },
            Change::Publish { service: web(), port: "nonsense".into() },
            Change::Unpublish { service: web(), port: "8080/tcp".into() },
            Change::Weight { task: id(1), weight: 50 },
            Change::Drain { task: id(2) },
            Change::Availability { node: "nodeid2".into(), availability: "drain".into() },
        ]
    );

    // A service that goes while somebody looks.
    browser.open(&format!("{}#/service/serviceid7", served.url()));
    browser.wait_text("h1", "auth");
    served.sample.model.lock().unwrap().services.retain(|service| service.id != "serviceid7");
    browser.wait_text("h1", "Gone");

    // Who may only look is offered nothing else.
    enter(&served, &browser, false);
    browser.open(&format!("{}#/service/serviceid0", served.url()));
    browser.wait_text(".ports", "9000:90/tcp");
    browser.wait_text("tbody", "web.2");
    assert_eq!(
        browser.script(
            "return document.querySelectorAll('main form, main .danger, main input[type=number]').length"
        ),
        json!(0)
    );
}

#[test]
fn a_session_ends() {
    let limits = Limits { idle: Duration::from_secs(4), ..Limits::default() };
    let served = Served::new(Sample::new(3, 2, 2), limits);
    let browser = Browser::new();
    browser.open(&served.url());
    browser.wait_text("h1", "Sign in");
    browser.wait_text("main", "There is no session");
    browser.open(&format!("{}#login=guessed", served.url()));
    browser.wait_text("[role=alert]", "this login is wrong");
    assert_eq!(browser.script("return document.querySelector('nav').hidden"), json!(true));

    // By pasting what was printed; it is good for once.
    let printed = served.login(false);
    browser.enter("input[name=token]", &printed);
    browser.click("form button");
    browser.wait_text("h1", "Overview");
    assert_eq!(browser.script("return document.cookie"), json!(""), "no script reads the session");
    // A page that is open, with nobody there, is no use.
    browser.wait_text("[role=alert]", "The session has ended");
    browser.enter("input[name=token]", &printed);
    browser.click("form button");
    browser.wait_text("[role=alert]", "used before");

    enter(&served, &browser, false);
    browser.click("#leave");
    browser.wait_text("[role=alert]", "You have signed out");
    browser.open("about:blank");
    browser.open(&format!("{}#/tasks", served.url()));
    browser.wait_text("h1", "Sign in");
}

#[test]
fn names_do_not_become_markup() {
    const IMAGE: &str = "<img src=x onerror=\"window.hacked=1\">";
    let long = "n".repeat(63);
    let turned = "a\u{202e}b\u{2066}c";
    let sample = Sample::new(3, 3, 2);
    {
        let mut model = sample.model.lock().unwrap();
        for (at, name) in [IMAGE, turned, &long].into_iter().enumerate() {
            let old = std::mem::replace(&mut model.nodes[at].name, name.to_owned());
            for task in model.tasks.iter_mut().filter(|task| task.node == old) {
                task.node = name.to_owned();
            }
            model.services[at].name = name.to_owned();
            model.networks[at].name = name.to_owned();
            model.events[at].name = name.to_owned();
            model.events[at].detail = format!("labels=\"{name}\"");
        }
        model.services[0].check = format!("cmd:{IMAGE}");
        for (at, task) in model.tasks.iter_mut().enumerate() {
            task.name = [IMAGE, turned, &long][at % 3].to_owned();
            task.note = IMAGE.to_owned();
            task.service = IMAGE.to_owned();
        }
        model.problems[0].text = format!("{IMAGE} is down");
        model.drops[0].reason = IMAGE.to_owned();
        model.cluster.leader = Some(IMAGE.to_owned());
    }
    let served = Served::new(sample, Limits::default());
    let browser = Browser::new();
    browser.resize(375, 740);
    enter(&served, &browser, true);
    let pages = [
        "overview",
        "nodes",
        "networks",
        "services",
        "tasks",
        "events",
        "map",
        "service/serviceid0",
        "service/serviceid2",
    ];
    for page in pages {
        browser.open(&format!("{}#/{page}", served.url()));
        browser.wait("document.querySelector('main').innerText.includes('n'.repeat(20)) || document.querySelector('main').innerHTML.includes('&lt;img')");
        let found = browser.script(
            "return {made: document.querySelectorAll('img, script:not([src=\"/app.js\"])').length, hacked: window.hacked ?? 0,
             turns: /[\\u202a-\\u202e\\u2066-\\u2069]/.test(document.body.innerText + document.title),
             wide: document.scrollingElement.scrollWidth - document.documentElement.clientWidth}",
        );
        assert_eq!(found, json!({"made": 0, "hacked": 0, "turns": false, "wide": found["wide"]}), "{page}");
        assert!(found["wide"].as_i64().unwrap() <= 0, "{page} is wider than a phone: {found}");
    }
    browser.open(&format!("{}#/nodes", served.url()));
    browser.wait_text("tbody", "a\\u{202e}b\\u{2066}c");
    browser.wait_text("tbody", IMAGE);
    browser.click("[aria-label^='Drain <img']");
    browser.wait_text("dialog", IMAGE);
}

/// What is wrong with a page for people who do not see it well, or not at all.
const FAULTS: &str = r#"
const faults = [];
const seen = (e) => e.checkVisibility({visibilityProperty: true}) && e.getClientRects().length > 0;
const name = (e) => (e.getAttribute('aria-label') || e.labels?.[0]?.innerText || e.innerText || e.textContent || '').trim();
for (const e of document.querySelectorAll('a, button, input, select, [tabindex="0"]')) if (seen(e) && !name(e)) faults.push('no name: ' + e.outerHTML.slice(0, 90));
if (document.querySelectorAll('h1').length !== 1) faults.push('not one h1');
if (!document.querySelector('main') || !document.querySelector('nav[aria-label]')) faults.push('no landmarks');
if (!document.documentElement.lang || !document.title) faults.push('no language or title');
const ids = [...document.querySelectorAll('[id]')].map((e) => e.id);
if (new Set(ids).size !== ids.length) faults.push('an id twice');
for (const t of document.querySelectorAll('table')) if (!t.querySelector('th[scope=col]')) faults.push('a table without heads');
if (document.scrollingElement.scrollWidth > document.documentElement.clientWidth) faults.push('wider than the screen: ' + document.scrollingElement.scrollWidth);
const paint = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
const rgb = (color) => { paint.clearRect(0, 0, 1, 1); paint.fillStyle = color; paint.fillRect(0, 0, 1, 1); return [...paint.getImageData(0, 0, 1, 1).data]; };
const light = ([r, g, b]) => [r, g, b].map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4).reduce((s, v, i) => s + v * [0.2126, 0.7152, 0.0722][i], 0);
const back = (e) => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c[3] === 255) return c; } return [255, 255, 255]; };
const contrast = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05); };
for (const e of document.querySelectorAll('body *:not(svg *)')) {
  if (!seen(e) || ![...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim())) continue;
  if (e.matches('.skip, .hidden') || e.closest('.skip, button:disabled')) continue;
  const ratio = contrast(rgb(getComputedStyle(e).color), back(e));
  if (ratio < 4.5) faults.push(`contrast ${ratio.toFixed(2)}: ${e.outerHTML.slice(0, 90)}`);
}
for (const e of document.querySelectorAll('.mapbox text')) {
  const ratio = contrast(rgb(getComputedStyle(e).fill), back(e.closest('.mapbox')));
  if (ratio < 4.5) faults.push(`contrast ${ratio.toFixed(2)} on the map: ${e.textContent}`);
}
for (const e of document.querySelectorAll('input, select, button.quiet')) {
  if (!seen(e) || e.disabled) continue;
  const ratio = contrast(rgb(getComputedStyle(e).borderTopColor), back(e.parentElement));
  if (ratio < 3) faults.push(`edge ${ratio.toFixed(2)}: ${e.outerHTML.slice(0, 90)}`);
}
return faults.slice(0, 8);
"#;

#[test]
fn small_and_large_light_and_dark_by_keyboard_and_by_ear() {
    let served = Served::new(Sample::new(6, 8, 4), Limits::default());
    let browser = Browser::new();
    browser.prefer("prefers-reduced-motion", "reduce");
    enter(&served, &browser, true);
    let pages = ["overview", "nodes", "networks", "services", "tasks", "events", "map", "service/serviceid1"];
    for (width, theme) in [(375, "light"), (1280, "dark"), (375, "dark"), (1280, "light"), (320, "light")] {
        browser.resize(width, 740);
        browser.script(&format!("document.documentElement.dataset.theme = '{theme}'"));
        for page in pages {
            browser.script(&format!("location.hash = '#/{page}'"));
            browser.wait("document.querySelector('main').innerText.length > 120 && document.querySelector('main tbody tr:not(.space), main .mapbox a, main .ports li')");
            let faults = browser.script(FAULTS);
            assert_eq!(faults, json!([]), "{page}, {theme}, {width} pixels");
        }
    }
    let moving = browser.script("location.hash = '#/map'; return document.getAnimations().length");
    assert_eq!(moving, json!(0), "reduced motion");

    // What the system prefers, until somebody chooses.
    browser.script("delete document.documentElement.dataset.theme");
    let back = "getComputedStyle(document.body).backgroundColor";
    browser.prefer("prefers-color-scheme", "dark");
    let dark = browser.script(&format!("return {back}"));
    browser.prefer("prefers-color-scheme", "light");
    let light = browser.script(&format!("return {back}"));
    assert_ne!(dark, light);
    browser.click("#theme");
    browser.click("#theme");
    browser.wait("document.querySelector('#theme').getAttribute('aria-label') === 'Colours: Dark'");
    assert_eq!(browser.script(&format!("return {back}")), dark, "chosen against what the system prefers");

    // Without a mouse: the skip link, the pages, a filter, a row, an action and back out of it.
    browser.resize(1280, 740);
    browser.script("location.hash = '#/overview'");
    browser.wait_text(".tile", "Nodes");
    let focus = || {
        browser.script("const e = document.activeElement; return e.getAttribute('aria-label') || e.innerText || e.tagName")
    };
    browser.script("document.activeElement.blur(); document.querySelector('#skip').focus()");
    assert_eq!(focus(), json!("Skip to the content"));
    assert_eq!(
        browser.script("return document.querySelector('#skip').getBoundingClientRect().top >= 0"),
        json!(true),
        "seen when it has the focus"
    );
    browser.keys("\u{e007}");
    assert_eq!(focus(), json!("Overview"), "the head of the page");
    browser.keys("\u{e004}");
    assert!(focus().as_str().unwrap().contains("Nodes"), "{}", focus());
    assert_ne!(
        browser.script("return getComputedStyle(document.activeElement).outlineStyle"),
        json!("none"),
        "the focus is seen"
    );
    browser.script("document.querySelector(\"nav a[href='#/services']\").focus()");
    browser.keys("\u{e007}");
    browser.wait_text("tbody", "cache");
    assert_eq!(focus(), json!("Services"), "the focus is on the new page");
    browser.keys("\u{e004}");
    assert_eq!(focus(), json!("Filter services"));
    browser.keys("cache");
    browser.wait_text(".count", "1 of 8");
    browser.script("document.querySelector('tbody a').focus()");
    // What is told anew every second leaves the focus where it is.
    let rate = text(&browser, "tbody td:nth-child(6)");
    browser.wait(&format!("document.querySelector('tbody td:nth-child(6)').innerText !== {}", json!(rate)));
    assert_eq!(focus(), json!("cache"));
    browser.keys("\u{e007}");
    browser.wait_text("h1", "cache");
    browser.wait_text("tbody", "cache.1");
    browser.script("document.querySelector(\"[aria-label='Drain cache.1']\").focus()");
    browser.keys("\u{e007}");
    browser.wait("document.querySelector('dialog')?.open");
    browser.keys("\u{e00c}");
    browser.wait("!document.querySelector('dialog')");
    assert!(served.sample.changes.lock().unwrap().is_empty(), "escape means no");
    // Regions that tell news politely: few, and none of them what changes each second.
    let told = browser.script("return [...document.querySelectorAll('[aria-live], [role=status], [role=alert]')].map((e) => e.id || e.className)");
    assert_eq!(told, json!(["live", "count", "notes"]));
}

#[test]
fn ten_thousand_tasks() {
    let served = Served::new(Sample::new(1000, 500, 20), Limits::default());
    let browser = Browser::new();
    browser.resize(1280, 800);
    browser.developer("Page.addScriptToEvaluateOnNewDocument", &json!({ "source": FIRST_VIEW }));
    browser.developer("Network.enable", &json!({}));
    browser.developer("Network.setCacheDisabled", &json!({"cacheDisabled": true}));
    enter(&served, &browser, false);
    // As somebody sees it who has never been here: nothing is kept, and the manager has no picture that is fresh.
    let mut seen: Vec<u64> = Vec::new();
    for _ in 0..7 {
        browser.open("about:blank");
        std::thread::sleep(Duration::from_secs(1));
        browser.open(&format!("{}#/overview", served.url()));
        browser.wait_text(".tile", "10,000");
        browser.wait("window.firstView");
        seen.push(browser.script("return Math.round(window.firstView)").as_u64().unwrap());
        let fetched: Value = browser.script(FETCHED);
        assert!(fetched["bytes"].as_u64().unwrap() < 300_000, "{fetched}");
        assert!(fetched["files"].as_u64().unwrap() > 10, "{fetched}");
    }
    seen.sort_unstable();
    eprintln!("first view: {}, on the screen after {seen:?} ms", browser.script(FETCHED));
    browser.click("nav a[href='#/tasks']");
    browser.wait_text(".count", "10,000 tasks");
    let drawn = "document.querySelectorAll('tbody tr:not(.space)').length";
    assert!(browser.script(&format!("return {drawn}")).as_u64().unwrap() <= 200);
    // To the end, as far as it is: rows of the end are there, and no more than before.
    browser.script("scrollTo(0, document.scrollingElement.scrollHeight)");
    browser.wait(
        "[...document.querySelectorAll('tbody tr')].some((e) => e.getAttribute('aria-rowindex') === '10001')",
    );
    assert!(browser.script(&format!("return {drawn}")).as_u64().unwrap() <= 200);
    browser.script("scrollTo(0, document.scrollingElement.scrollHeight / 2)");
    browser.wait(
        "[...document.querySelectorAll('tbody tr:not(.space)')].some((e) => { const r = e.getBoundingClientRect(); return r.top > 100 && r.bottom < innerHeight && Number(e.getAttribute('aria-rowindex')) > 3000; })",
    );
    browser.enter("#filter-tasks", "node:node-777");
    browser.wait_text(".count", "10 of 10,000 tasks");
    // What comes while somebody looks.
    let new = Task {
        id: "new".into(),
        name: "aaa-new".into(),
        node: "node-777".into(),
        state: "ready".into(),
        weight: 1,
        ..Task::default()
    };
    served.sample.model.lock().unwrap().tasks.push(new);
    browser.wait_text("tbody", "aaa-new");
    browser.wait_text(".count", "11 of 10,001 tasks");
    browser.open(&format!("{}#/services?sort=-rate", served.url()));
    browser.wait_text(".count", "500 services");
    browser.open(&format!("{}#/map", served.url()));
    browser.wait("document.querySelectorAll('.mapbox a').length >= 7");
}
