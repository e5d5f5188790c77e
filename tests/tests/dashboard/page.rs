//! A browser at the network of the nodes' clients, with the page of one manager open.

use std::{io, net::TcpStream, path::PathBuf};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Cluster, NetNs, Node, output, wait};
use serde_json::{Value, json};

use super::{SOON, browser::Browser, open};

/// See the module.
pub struct Page {
    pub browser: Browser,
    client: PathBuf,
}

impl Page {
    /// Signs in at `node`, whose certificate has to be what `meshctl dashboard` printed.
    pub fn open(cluster: &Cluster, node: &Node, write: bool) -> Result<Self> {
        let client = cluster.net().client();
        let path = client.path();
        let dial = move |port| {
            NetNs::run_at(&path, || TcpStream::connect(("127.0.0.1", port))).map_err(io::Error::other)?
        };
        let browser = Browser::elsewhere(client.command("chromedriver")?, Box::new(dial));
        browser.resize(1280, 900);
        let page = Self { browser, client: client.path() };
        page.sign_in(node, write)?;
        Ok(page)
    }

    /// Begins a session.
    pub fn sign_in(&self, node: &Node, write: bool) -> Result<()> {
        let listen = format!("{}:7380", node.address());
        let mut words = vec!["--listen", &listen];
        if write {
            words.push("--write");
        }
        let opened = open(node, &words)?;
        let text = |field: &str| opened[field].as_str().map(str::to_owned).context("what was opened");
        ensure!(text("address")? == listen, "{opened}");
        self.browser.open("about:blank");
        self.browser.open(&text("url")?);
        self.browser.wait_text("h1", "Overview");
        self.browser.wait_text("#live", "Live");
        let show = format!(
            "openssl s_client -connect {listen} </dev/null | openssl x509 -noout -fingerprint -sha256"
        );
        let shown = output(NetNs::command_at(&self.client, "sh")?.args(["-c", &show]))?;
        let printed = text("fingerprint")?;
        ensure!(shown.trim().ends_with(&format!("={printed}")), "{shown}: {printed}");
        Ok(())
    }

    /// Goes to a page by its address.
    pub fn go(&self, page: &str) {
        self.browser.script(&format!("location.hash = {}", json!(format!("#/{page}"))));
    }

    /// What the page would be told now.
    pub fn view(&self, view: &str) -> Value {
        self.browser.script(&format!("return fetch('/api/view/{view}').then((answer) => answer.json())"))
    }

    /// The row of a list that has just this name.
    pub fn row(&self, list: &str, name: &str) -> Result<Value> {
        let view = self.view(list);
        let rows = view["list"]["rows"].as_array().with_context(|| format!("{list}: {view}"))?;
        let found = rows.iter().find(|row| row["name"] == name);
        found.cloned().with_context(|| format!("no {name} in {view}"))
    }

    /// Waits until it is as `good` wants.
    pub fn wait_row(&self, list: &str, name: &str, good: impl Fn(&Value) -> bool) -> Result<Value> {
        wait(&format!("{name} of {list}"), SOON, || {
            let row = self.row(list, name)?;
            ensure!(good(&row), "{row}");
            Ok(row)
        })
    }

    /// Presses a button that asks, and says yes.
    pub fn confirm(&self, name: &str) {
        self.browser.click(&format!("[aria-label='{name}']"));
        self.browser.click("dialog .danger, dialog button:not(.quiet)");
        self.browser.wait("!document.querySelector('dialog')");
    }

    /// The text of what is shown.
    pub fn text(&self) -> String {
        let text = self.browser.script("return document.querySelector('main').innerText");
        text.as_str().unwrap_or_default().to_owned()
    }
}
