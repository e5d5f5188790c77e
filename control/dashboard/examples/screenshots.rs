//! Draws the pictures in the documentation: `cargo run -p mesh-dashboard --example screenshots -- docs/img`, from the root
//! of the repository, with a made-up cluster and the Chromium that the tests use.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a chore beside the tests")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::{fs, path::PathBuf, thread::sleep, time::Duration};

use mesh_dashboard::Limits;
use support::{Sample, Served, browser::Browser};

/// Page, file, width, height, colours.
const PICTURES: [(&str, &str, u32, u32, &str); 7] = [
    ("overview", "dashboard-overview", 1280, 860, "light"),
    ("map", "dashboard-map", 1280, 720, "light"),
    ("map", "dashboard-map-dark", 1280, 720, "dark"),
    ("services", "dashboard-services", 1280, 560, "light"),
    ("service/serviceid0", "dashboard-service", 1280, 860, "dark"),
    ("overview", "dashboard-phone", 375, 760, "dark"),
    ("tasks?q=web", "dashboard-phone-tasks", 375, 760, "light"),
];

fn main() {
    let folder = PathBuf::from(std::env::args().nth(1).expect("name the folder to draw into"));
    fs::create_dir_all(&folder).unwrap();
    let served = Served::new(Sample::new(6, 8, 4), Limits::default());
    let browser = Browser::new();
    browser.open(&served.login(true));
    browser.wait_text("#live", "Live");
    for (page, name, width, height, theme) in PICTURES {
        browser.resize(width, height);
        browser.script(&format!(
            "document.documentElement.dataset.theme = '{theme}'; location.hash = '#/{page}'"
        ));
        browser.wait("document.querySelector('main tbody tr:not(.space)')");
        // Some points for the charts, and no notes over the page.
        let charts = name.ends_with("overview") || name.ends_with("service");
        sleep(Duration::from_secs(if charts { 45 } else { 3 }));
        browser.script("document.querySelector('#notes').replaceChildren(); document.activeElement.blur()");
        let path = folder.join(format!("{name}.png"));
        fs::write(&path, browser.picture()).unwrap();
        println!("{}", path.display());
    }
}
