//! What Prometheus and those who watch over nodes ask: metrics that are true and that promtool finds in order, health and
//! readiness with reasons, a listener that follows the configuration; rules that fire when they should.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Cluster, Node, TaskSpec, curl, output, run, wait};
use nix::sys::signal::{Signal, kill};

const SOON: Duration = Duration::from_secs(30);
const METRICS: &str = "http://127.0.0.1:9476/metrics";

/// What the node answers there, and its HTTP status behind it, on a line of its own.
fn ask(node: &Node, url: &str, words: &[&str]) -> Result<String> {
    let mut curl = node.command("curl")?;
    output(
        curl.args(["-sS", "--max-time", "30", "--write-out", "\n%{http_code} %{content_type}"])
            .args(words)
            .arg(url),
    )
}

/// The sum of all samples whose series begin so and have each of `with` in them.
fn sum(text: &str, name: &str, with: &[&str]) -> f64 {
    let of_name =
        |series: &str| series.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('{'));
    let samples = text.lines().filter_map(|line| line.rsplit_once(' '));
    let samples =
        samples.filter(|(series, _)| of_name(series) && with.iter().all(|part| series.contains(part)));
    samples.filter_map(|(_, value)| value.parse::<f64>().ok()).sum()
}

fn promtool(words: &[&str], input: &str) -> Result<()> {
    let mut promtool = Command::new("promtool");
    promtool.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut promtool = promtool.spawn().context("run promtool, of Debian's package prometheus")?;
    promtool.stdin.take().context("its input")?.write_all(input.as_bytes())?;
    let output = promtool.wait_with_output()?;
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "promtool {}: {said}", words.join(" "));
    Ok(())
}

fn docs(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(file)
}

#[test]
fn rules_and_configuration_of_the_documentation_are_in_order() -> Result<()> {
    let (rules, test) = (docs("prometheus/alerts.yaml"), docs("prometheus/alerts_test.yaml"));
    let name = |path: &Path| path.to_str().map(str::to_owned).context("a path");
    promtool(&["check", "rules", &name(&rules)?], "")?;
    promtool(&["test", "rules", &name(&test)?], "")?;
    let page = std::fs::read_to_string(docs("metrics.md"))?;
    let (_, rest) = page.split_once("```yaml file=prometheus.yml\n").context("the configuration")?;
    let (configuration, _) = rest.split_once("```").context("its end")?;
    promtool(&["check", "config", "--syntax-only", "/dev/stdin"], configuration)
}

#[test]
fn a_cluster_is_measured() -> Result<()> {
    run(2, |cluster| {
        let (first, second) = (&cluster[0], &cluster[1]);
        let create =
            ["network", "create", "--driver", "overlay", "--subnet", "10.10.3.0/24", "--attachable", "prod"];
        first.ctl(&create)?;
        first.ctl(&["service", "create", "--network", "prod", "web"])?;
        first.ctl(&["publish", "8080:80", "web"])?;
        cluster.wait_for_view()?;
        let spec = |name, service| TaskSpec { name, network: "prod", service, ..TaskSpec::default() };
        let web = second.run_nginx(&spec("web1", Some("web")))?;
        let client = second.run_idle(&spec("client", None))?;
        traffic_is_counted(cluster, &web.task, &client)?;
        names_are_counted(second, &client)?;
        formats_are_in_order(first)?;
        programs_are_counted_on_demand(second)?;
        sums_stay_when_tasks_end(second, client)?;
        the_listener_follows_the_configuration(first)?;
        the_state_of_a_node_is_told(first, second)
    })
}

fn traffic_is_counted(cluster: &Cluster, web: &mesh_tests::Task, client: &mesh_tests::Task) -> Result<()> {
    let (first, second) = (&cluster[0], &cluster[1]);
    let url = format!("http://{}:8080/", first.address());
    let outside = cluster.net().client();
    wait("the published port", SOON, || curl(outside.command("curl")?, &url))?;
    let before = ask(first, METRICS, &[])?;
    for _ in 0..5 {
        curl(outside.command("curl")?, &url)?;
    }
    // The node that was spoken to counts the frontend; the task's node counts the task.
    wait("five more flows by the published port", SOON, || {
        let now = ask(first, METRICS, &[])?;
        let more = |name: &str| {
            let port = ["service=\"web\"", "frontend=\"0.0.0.0:8080/tcp\""];
            sum(&now, name, &port) - sum(&before, name, &port)
        };
        ensure!(more("meshd_frontend_new_flows_total") == 5.0, "{}", more("meshd_frontend_new_flows_total"));
        ensure!(
            more("meshd_frontend_receive_packets_total") >= 20.0
                && more("meshd_frontend_transmit_bytes_total") > 0.0
        );
        ensure!(more("meshd_frontend_refused_packets_total") == 0.0);
        Ok(())
    })?;
    let address = format!("http://{}/", web.address()?);
    wait("an answer from task to task", SOON, || curl(client.command("curl")?, &address))?;
    wait("what the tasks sent and got", SOON, || {
        let now = ask(second, METRICS, &[])?;
        for (task, service) in [("web1", "web"), ("client", "")] {
            let labels =
                [format!("task=\"{task}\""), format!("service=\"{service}\""), "network=\"prod\"".to_owned()];
            let labels = labels.each_ref().map(String::as_str);
            for what in ["receive_packets", "receive_bytes", "transmit_packets", "transmit_bytes"] {
                ensure!(
                    sum(&now, &format!("meshd_endpoint_{what}_total"), &labels) >= 4.0,
                    "{task}: {what}: {now}"
                );
            }
        }
        ensure!(sum(&now, "meshd_endpoint_new_flows_total", &["task=\"web1\""]) >= 5.0, "{now}");
        ensure!(sum(&now, "meshd_network_endpoints", &["network=\"prod\""]) == 2.0, "{now}");
        ensure!(sum(&now, "meshd_network_receive_bytes_total", &["network=\"prod\""]) > 400.0, "{now}");
        ensure!(sum(&now, "meshd_service_ready_tasks", &["service=\"web\""]) == 1.0, "{now}");
        Ok(())
    })
}

fn names_are_counted(node: &Node, task: &mesh_tests::Task) -> Result<()> {
    let before = ask(node, METRICS, &[])?;
    for _ in 0..3 {
        ensure!(task.dig(&["web"])?.len() == 1);
    }
    // An answer is counted when it is on its way.
    wait("the answers to be counted", SOON, || {
        let now = ask(node, METRICS, &[])?;
        let more = |name: &str, with: &[&str]| sum(&now, name, with) - sum(&before, name, with);
        ensure!(more("meshd_dns_queries_total", &["outcome=\"answered\""]) >= 3.0, "{now}");
        ensure!(more("meshd_dns_own_response_seconds_count", &[]) >= 3.0, "{now}");
        ensure!(more("meshd_dns_own_response_seconds_sum", &[]) > 0.0, "{now}");
        Ok(())
    })
}

fn formats_are_in_order(node: &Node) -> Result<()> {
    let plain = ask(node, METRICS, &[])?;
    ensure!(plain.ends_with("200 text/plain; version=0.0.4; charset=utf-8"), "{plain}");
    let text = plain.rsplit_once('\n').context("a text")?.0;
    promtool(&["check", "metrics"], text)?;
    let accept = "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5";
    let open = ask(node, METRICS, &["--header", accept])?;
    ensure!(
        open.contains("\n# EOF\n")
            && open.ends_with("200 application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    wait("a leader and two members", SOON, || {
        let text = ask(node, METRICS, &[])?;
        ensure!(sum(&text, "meshd_raft_leader", &[]) == 1.0, "{text}");
        ensure!(sum(&text, "meshd_members", &["state=\"alive\""]) == 2.0, "{text}");
        let node = sum(&text, "meshd_certificate_expiry_timestamp_seconds", &[]);
        let ca = sum(&text, "meshd_ca_certificate_expiry_timestamp_seconds", &[]);
        ensure!(node > 1.7e9 && ca > node + 86_400.0 * 365.0, "{text}");
        Ok(())
    })
}

fn programs_are_counted_on_demand(node: &Node) -> Result<()> {
    let wrong = ask(node, &format!("{METRICS}?programs=always"), &[])?;
    ensure!(
        wrong.starts_with("programs: give seconds from 1s to 10s") && wrong.contains("\n400 "),
        "{wrong}"
    );
    // Whatever came by in that second: gossip at least.
    wait("runs of programs", SOON, || {
        let now = ask(node, &format!("{METRICS}?programs=1s"), &[])?;
        ensure!(sum(&now, "meshd_program_runs_total", &[]) > 0.0, "{now}");
        ensure!(sum(&now, "meshd_program_run_seconds_total", &[]) > 0.0, "{now}");
        Ok(())
    })
}

fn sums_stay_when_tasks_end(node: &Node, mut task: mesh_tests::Task) -> Result<()> {
    let name = "meshd_network_receive_bytes_total";
    let before = sum(&ask(node, METRICS, &[])?, name, &["network=\"prod\""]);
    task.stop()?;
    wait("the task's series to end, and the network's to stay", SOON, || {
        let now = ask(node, METRICS, &[])?;
        ensure!(!now.contains("task=\"client\""), "{now}");
        ensure!(sum(&now, name, &["network=\"prod\""]) >= before, "{now}");
        Ok(())
    })
}

fn the_listener_follows_the_configuration(node: &Node) -> Result<()> {
    let path = node.config();
    let before = std::fs::read_to_string(&path).unwrap_or_default();
    let reload = |text: &str| -> Result<()> {
        std::fs::write(&path, format!("{before}\n{text}"))?;
        kill(nix::unistd::Pid::from_raw(node.pid()?.try_into()?), Signal::SIGHUP)?;
        Ok(())
    };
    reload("[metrics]\nlisten = \"127.0.0.1:9477\"\nendpoints = 7\n")?;
    wait("the other port", SOON, || ask(node, "http://127.0.0.1:9477/healthz", &[]))?;
    ensure!(ask(node, METRICS, &[]).is_err(), "the port of before still answers");
    reload("[metrics]\nlisten = \"\"\n")?;
    wait("no port", SOON, || {
        ensure!(ask(node, "http://127.0.0.1:9477/healthz", &[]).is_err(), "it still answers");
        Ok(())
    })?;
    reload("")?;
    wait("the usual port", SOON, || ask(node, METRICS, &[]).map(drop))
}

fn the_state_of_a_node_is_told(manager: &Node, worker: &Node) -> Result<()> {
    ensure!(ask(worker, "http://127.0.0.1:9476/healthz", &[])?.starts_with("ok\n"));
    wait("the worker to be ready", SOON, || {
        let ready = ask(worker, "http://127.0.0.1:9476/readyz", &[])?;
        ensure!(ready.starts_with("ready\n") && ready.contains("\n200 "), "{ready}");
        Ok(())
    })?;
    ensure!(ask(worker, "http://127.0.0.1:9476/nothing", &[])?.contains("\n404 "));
    // Without a manager a node is ready: its data path is what was decided.
    manager.stop()?;
    wait("the worker to be without a manager", SOON, || {
        let now = ask(worker, METRICS, &[])?;
        ensure!(
            sum(&now, "meshd_manager_session", &[]) == 0.0 && sum(&now, "meshd_ready", &[]) == 1.0,
            "{now}"
        );
        Ok(())
    })?;
    worker.ctl(&["leave", "--force"])?;
    let out = ask(worker, "http://127.0.0.1:9476/readyz", &[])?;
    ensure!(out.starts_with("this node is in no cluster") && out.contains("\n503 "), "{out}");
    ensure!(sum(&ask(worker, METRICS, &[])?, "meshd_ready", &[]) == 0.0);
    Ok(())
}
