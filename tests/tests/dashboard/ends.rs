//! What ends the page: the configuration, a demotion, leaving the cluster; and what is refused.

use anyhow::{Context, Result, ensure};
use mesh_tests::{Node, output, run, wait};
use nix::sys::signal::{Signal, kill};
use serde_json::json;

use super::{SOON, open, wait_for_managers};

const USUAL: &str = "127.0.0.1:7380";

/// What is answered there, and the status.
fn ask(node: &Node, address: &str, path: &str, words: &[&str]) -> Result<String> {
    let mut curl = node.command("curl")?;
    curl.args(["-sSk", "--max-time", "10", "--write-out", "\n%{http_code}"]).args(words);
    output(curl.arg(format!("https://{address}{path}")))
}

fn served(node: &Node, address: &str) -> Result<()> {
    let answer = ask(node, address, "/", &[])?;
    ensure!(answer.ends_with("\n200"), "{answer}");
    Ok(())
}

fn ended(node: &Node, address: &str) -> Result<()> {
    let answer = ask(node, address, "/", &[]);
    ensure!(answer.is_err(), "{} still answers at {address}", node.name());
    Ok(())
}

/// Has the daemon follow a configuration with this in it.
fn reload(node: &Node, text: &str) -> Result<()> {
    let kept = node.run_folder().join("before.toml");
    if !kept.exists() {
        std::fs::write(&kept, std::fs::read_to_string(node.config()).unwrap_or_default())?;
    }
    std::fs::write(node.config(), format!("{}\n{text}\n", std::fs::read_to_string(&kept)?))?;
    kill(nix::unistd::Pid::from_raw(node.pid()?.try_into()?), Signal::SIGHUP)?;
    Ok(())
}

#[test]
fn the_page_ends_with_the_manager_and_follows_the_configuration() -> Result<()> {
    run(3, |cluster| {
        let (first, second, worker) = (&cluster[0], &cluster[1], &cluster[2]);
        first.ctl(&["node", "promote", "n2"])?;
        wait_for_managers(first, &["n1", "n2"])?;
        ended(first, USUAL).context("before anybody asked for it")?;
        let refused = worker.refused(&["dashboard"])?;
        ensure!(refused.message.contains("this node is a worker"), "{}", refused.message);

        ensure!(open(first, &[])?["address"] == USUAL);
        served(first, USUAL)?;
        // More addresses with the same port: the one before has to make room.
        ensure!(open(first, &["--listen", "0.0.0.0:7380"])?["address"] == "0.0.0.0:7380");
        served(first, &format!("{}:7380", first.address()))?;
        // Somebody else's address: what is served stays.
        let refused = first.refused(&["dashboard", "--listen", "192.0.2.7:7399"])?;
        ensure!(refused.message.contains("cannot listen on 192.0.2.7:7399"), "{}", refused.message);
        served(first, USUAL)?;

        times_are_followed(first)?;
        reload(first, "[dashboard]\nlisten = \"\"")?;
        wait("the page to end", SOON, || ended(first, USUAL))?;
        for words in [&["dashboard"][..], &["dashboard", "--listen", USUAL]] {
            let refused = first.refused(words)?;
            ensure!(refused.message.contains("`listen` of [dashboard]"), "{}", refused.message);
        }
        reload(first, "[dashboard]\nlisten = \"127.0.0.1:7381\"")?;
        wait("the other port", SOON, || {
            let opened = open(first, &[])?;
            ensure!(opened["address"] == "127.0.0.1:7381" && opened["idle_secs"] == 900, "{opened}");
            served(first, "127.0.0.1:7381")
        })?;

        // The leader knows of a new manager before that does.
        wait("the page of the second manager", SOON, || open(second, &[]))?;
        served(second, USUAL)?;
        first.ctl(&["node", "demote", "n2"])?;
        wait("the page of who was demoted to end", SOON, || ended(second, USUAL))?;
        wait("a refusal of who was demoted", SOON, || {
            let refused = second.refused(&["dashboard"])?;
            ensure!(refused.message.contains("this node is a worker"), "{}", refused.message);
            Ok(())
        })?;

        served(first, "127.0.0.1:7381")?;
        first.ctl(&["leave", "--force"])?;
        ended(first, "127.0.0.1:7381").context("after leaving")?;
        let refused = first.refused(&["dashboard"])?;
        ensure!(refused.message.contains("this node is in no cluster"), "{}", refused.message);
        Ok(())
    })
}

/// A session that is there goes by the times of now.
fn times_are_followed(node: &Node) -> Result<()> {
    let opened = open(node, &[])?;
    ensure!(opened["idle_secs"] == 900, "{opened}");
    let url = opened["url"].as_str().context("the address")?;
    let token = url.split_once("#login=").context("the login")?.1;
    let cookies = node.run_folder().join("cookies").display().to_string();
    let login = json!({ "token": token }).to_string();
    let kind = "content-type: application/json";
    let said =
        ask(node, USUAL, "/api/login", &["--cookie-jar", &cookies, "--header", kind, "--data", &login])?;
    ensure!(said.ends_with("\n200"), "{said}");
    let look = || ask(node, USUAL, "/api/view/nodes?stream=1", &["--cookie", &cookies, "--max-time", "1"]);
    let said = ask(node, USUAL, "/api/view/nodes", &["--cookie", &cookies])?;
    ensure!(said.ends_with("\n200") && said.contains("\"n3\""), "{said}");
    reload(node, "[dashboard]\nlisten = \"127.0.0.1:7380\"\nidle = 1")?;
    // A page that is merely open is nobody who does something.
    wait("the session to end", SOON, || {
        let said = look().unwrap_or_default();
        ensure!(said.ends_with("\n401") || said.contains("event: ended"), "{said}");
        Ok(())
    })?;
    ensure!(open(node, &[])?["idle_secs"] == 1);
    Ok(())
}
