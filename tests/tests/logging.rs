//! What the daemon tells of itself: its log, as it is changed while it runs, and spans of its calls, which a collector gets.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Cluster, Node, run, succeed, wait};

const SOON: Duration = Duration::from_secs(30);
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// Has the daemon start anew with `settings` too; those of sections come last in a file.
fn set(node: &Node, settings: &str, sections: &str) -> Result<()> {
    let kept = fs::read_to_string(node.config())?;
    fs::write(node.config(), format!("{settings}\n{kept}\n{sections}\n"))?;
    node.stop()?;
    node.start()
}

/// What a collector of the test's own was sent, at the usual port of a node's loopback.
#[derive(Clone)]
struct Collector {
    taken: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Collector {
    fn start(cluster: &Cluster, index: usize) -> Result<Self> {
        let node = cluster.net().nodes().get(index).context("no such node")?;
        let listener = node.run(|| TcpListener::bind("127.0.0.1:4318"))?.context("a collector's port")?;
        let collector = Self { taken: Arc::default() };
        let taken = collector.taken.clone();
        // It ends with the test's process.
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                if let Ok(message) = answer(&mut stream) {
                    taken.lock().unwrap_or_else(PoisonError::into_inner).push(message);
                }
            }
        });
        Ok(collector)
    }

    /// Waits until a message has a span of the test's trace with this name.
    fn wait_for(&self, name: &str) -> Result<()> {
        let trace = u128::from_str_radix(TRACE, 16)?.to_be_bytes();
        let has = |message: &[u8], part: &[u8]| message.windows(part.len()).any(|window| window == part);
        wait("a span", SOON, || {
            let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
            let there = taken.iter().any(|message| has(message, &trace) && has(message, name.as_bytes()));
            ensure!(there, "no span of {name} in {} messages", taken.len());
            Ok(())
        })
    }
}

/// Reads one request, and takes it.
fn answer(stream: &mut TcpStream) -> Result<Vec<u8>> {
    stream.set_read_timeout(Some(SOON))?;
    let mut bytes = Vec::new();
    loop {
        let mut some = [0; 4096];
        let count = stream.read(&mut some)?;
        ensure!(count > 0, "the request is cut off");
        bytes.extend_from_slice(&some[..count]);
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.context("a request without a length")?.parse()?;
        if bytes.len() >= end + 4 + length {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
            return Ok(bytes.split_off(end + 4));
        }
    }
}

#[test]
fn a_call_is_followed_from_meshctl_to_the_manager() -> Result<()> {
    run(2, |cluster| {
        let (manager, worker) = (&cluster[0], &cluster[1]);
        let (of_manager, of_worker) = (Collector::start(cluster, 0)?, Collector::start(cluster, 1)?);
        for node in [manager, worker] {
            set(node, "", "[traces]\nendpoint = \"http://127.0.0.1:4318\"")?;
        }
        let words = ["network", "create", "--driver", "overlay", "--subnet", "10.10.3.0/24", "--attachable"];
        manager.ctl(&[&words[..], &["prod"]].concat())?;
        cluster.wait_for_view()?;
        cluster.wait_for_members(2)?;
        let mut command = worker.meshctl()?;
        command.args(["run", "--network", "prod", "--name", "one", "--", "true"]);
        succeed(command.env("TRACEPARENT", format!("00-{TRACE}-00f067aa0ba902b7-01")))?;
        of_worker.wait_for("mesh.v1.Local/Attach")?;
        of_worker.wait_for("lease addresses")?;
        // The worker has an address for it by asking the manager, in the same trace.
        of_manager.wait_for("mesh.v1.Dispatcher/Lease")?;
        let traces = worker.ctl_json(&["status"])?["traces"].clone();
        ensure!(traces["exported"].as_u64() > Some(0) && traces["dropped"] == 0, "traces are {traces}");
        Ok(())
    })
}

#[test]
fn what_is_logged_changes_while_the_daemon_runs() -> Result<()> {
    run(1, |cluster| {
        let node = &cluster[0];
        let level = |words: &[&str]| node.ctl_json(&[&["log-level"], words].concat());
        let usual = level(&[])?;
        ensure!(
            usual["in_force"] == usual["configured"] && usual["place"] == "stderr, text",
            "it is {usual}"
        );
        let details = || -> Result<usize> { Ok(fs::read_to_string(node.log())?.matches("DEBUG").count()) };
        ensure!(details()? == 0, "there are details already");
        let changed = level(&["debug", "--for", "1h"])?;
        ensure!(changed["in_force"] == "debug" && changed["left_secs"].as_u64() > Some(3_000), "{changed}");
        wait("details", SOON, || {
            node.ctl(&["status"])?;
            ensure!(details()? > 0, "nothing more is logged");
            Ok(())
        })?;
        let status = node.ctl(&["status"])?;
        ensure!(status.contains("debug, for "), "status says nothing of it: {status}");
        // Nonsense is told, and changes nothing.
        let refusal = node.refused(&["log-level", "inof"])?;
        ensure!(refusal.message.contains("is no level"), "{}", refusal.message);
        ensure!(level(&[])?["in_force"] == "debug");
        // A short wish in the place of a long one ends when it said.
        level(&["debug", "--for", "1s"])?;
        wait("the end of it", SOON, || {
            let now = level(&[])?;
            ensure!(now["in_force"] == usual["configured"] && now["left_secs"].is_null(), "it is {now}");
            Ok(())
        })?;
        level(&["debug"])?;
        let reset = level(&["--reset"])?;
        ensure!(reset == usual, "it is {reset}");

        set(node, "log_format = \"json\"", "")?;
        ensure!(level(&[])?["place"] == "stderr, JSON");
        let log = fs::read_to_string(node.log())?;
        let line = log.lines().rfind(|line| line.contains("meshd is ready")).context("no such line")?;
        let event: serde_json::Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        ensure!(event["level"] == "INFO" && event["message"] == "meshd is ready", "it is {event}");
        ensure!(event["version"].is_string(), "its fields are {event}");
        Ok(())
    })
}
