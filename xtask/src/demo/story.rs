//! What is set up, and what is looked at.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mesh_tests::{Cluster, Nginx, Node, Tally, Task, TaskSpec, curl, get, iperf3, wait};

use crate::{findings::Findings, progress::step};

const SOON: Duration = Duration::from_secs(5);
const SUBNET: &str = "10.10.3.0/24";

/// The tasks of the demo.
pub struct Stage {
    /// The service that is published.
    web: Vec<Nginx>,
    /// Tasks on another network with the same subnet.
    lab: Vec<Nginx>,
    /// A task from which names are asked.
    shell: Task,
}

fn spec<'a>(name: &'a str, network: &'a str, service: Option<&'a str>) -> TaskSpec<'a> {
    TaskSpec { name, network, service, ..TaskSpec::default() }
}

impl Stage {
    /// Makes the cluster, the networks and the tasks.
    pub fn set(cluster: &Cluster) -> Result<Self> {
        step("meshctl init on n1, join on n2 and n3", || cluster.form())?;
        let first = &cluster[0];
        step("meshctl network create --driver overlay --subnet 10.10.3.0/24 prod (and lab)", || {
            for name in ["prod", "lab"] {
                first.ctl(&["network", "create", "--driver", "overlay", "--subnet", SUBNET, name])?;
            }
            Ok(())
        })?;
        step("meshctl service create --network prod web; meshctl publish 80:80 web", || {
            first.ctl(&["service", "create", "--network", "prod", "web"])?;
            first.ctl(&["service", "create", "--network", "prod", "tools"])?;
            first.ctl(&["service", "create", "--network", "lab", "secret"])?;
            first.ctl(&["publish", "80:80", "web"])?;
            cluster.wait_for_view()
        })?;
        let web = step("meshctl run --network prod --service web -- nginx: web1 on n2, web2 on n3", || {
            let start = |node: &Node, name| node.run_nginx(&spec(name, "prod", Some("web")));
            Ok(vec![start(&cluster[1], "web1")?, start(&cluster[2], "web2")?])
        })?;
        let lab = step("the same on the network lab: secret1 on n1, secret2 on n2", || {
            let start = |node: &Node, name| node.run_nginx(&spec(name, "lab", Some("secret")));
            Ok(vec![start(&cluster[0], "secret1")?, start(&cluster[1], "secret2")?])
        })?;
        let shell = step("a task to ask from on n1: shell", || {
            first.run_idle(&spec("shell", "prod", Some("tools")))
        })?;
        Ok(Self { web, lab, shell })
    }

    /// Leaves the tasks running.
    pub fn keep(&mut self) {
        self.shell.keep();
        self.web.iter_mut().chain(&mut self.lab).for_each(|nginx| nginx.task.keep());
    }

    /// Looks at everything.
    pub fn play(&self, cluster: &Cluster, findings: &mut Findings) -> Result<()> {
        for node in cluster.nodes() {
            let what = format!("client: 20 x curl http://{}:80 ({})", node.address(), node.name());
            findings.look(&what, || published(cluster, node));
        }
        let address = cluster.net().client_address().to_string();
        findings.look("nginx's logs: the client's own address", || self.logged(&address));
        for node in cluster.nodes() {
            let what = format!("{}: curl http://localhost:80", node.name());
            findings.look(&what, || {
                let body = curl(node.command("curl")?, "http://localhost:80/")?;
                ensure!(body.starts_with("web"), "{body}");
                Ok(body)
            });
        }
        findings.look("task: dig web, one virtual address", || {
            let found = self.shell.dig(&["web"])?;
            ensure!(found.len() == 1, "{found:?}");
            Ok(found.concat())
        });
        findings.look("task: dig tasks.web, all tasks", || {
            let found = self.shell.dig(&["tasks.web"])?;
            ensure!(found.len() == self.web.len(), "{found:?}");
            Ok(found.join(" "))
        });
        findings.look("task: curl http://web by its name", || {
            let body = curl(self.shell.command("curl")?, "http://web/")?;
            ensure!(body.starts_with("web"), "{body}");
            Ok(body)
        });
        findings.look("lab, same subnet: its own service answers", || {
            let body = curl(self.lab[0].task.command("curl")?, "http://secret2/")?;
            ensure!(body.starts_with("secret2 "), "{body}");
            Ok(body)
        });
        findings.look("lab resolves nothing of prod", || {
            for name in ["web", "tasks.web", "web1", "shell"] {
                let found = self.lab[0].task.dig(&[name])?;
                ensure!(found.is_empty(), "{name} is {found:?}");
            }
            Ok("no answer".to_owned())
        });
        findings.look("lab reaches nothing of prod", || self.unreached());
        findings.look("iperf3: overlay beside underlay, 3 x 1 s each, medians", || self.throughput(cluster));
        mesh_tests::interrupt::check()
    }

    fn logged(&self, client: &str) -> Result<String> {
        let mut seen = Vec::new();
        for nginx in &self.web {
            let lines = nginx.clients();
            let from_client = lines.iter().filter(|line| *line == client).count();
            ensure!(from_client > 0, "{} logs only {lines:?}", nginx.task.name());
            seen.push(format!("{}: {from_client} x {client}", nginx.task.name()));
        }
        Ok(seen.join(", "))
    }

    /// Every address that prod uses belongs to a task of lab or to nobody there.
    fn unreached(&self) -> Result<String> {
        let mut addresses = vec![self.shell.address()?];
        for nginx in &self.web {
            addresses.push(nginx.task.address()?);
        }
        for address in &addresses {
            let server = (*address, 80).into();
            if let Ok(body) = self.lab[0].task.inside(|| get(server, Duration::from_secs(1)))? {
                ensure!(body.starts_with("secret"), "{address} leads to {body}");
            }
        }
        Ok(format!("{} addresses tried", addresses.len()))
    }

    fn throughput(&self, cluster: &Cluster) -> Result<String> {
        let nodes = cluster.net().nodes();
        let [first, second] = [&self.web[0].task, &self.web[1].task];
        let (mut under, mut over) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            under.push(iperf3(&nodes[1].path(), &nodes[2].path(), cluster[2].address(), 1, None)?);
            over.push(iperf3(&first.namespace(), &second.namespace(), second.address()?, 1, None)?);
        }
        let (under, over) = (median(under), median(over));
        ensure!(over > 0.0, "nothing came through");
        Ok(format!("{over:.1} and {under:.1} Gbit/s: {:.2}", over / under))
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Asks one node until all tasks answer, then counts 20 answers.
fn published(cluster: &Cluster, node: &Node) -> Result<String> {
    let client = cluster.net().client();
    let url = format!("http://{}:80/", node.address());
    wait("all tasks to answer", SOON, || {
        let mut tally = Tally::default();
        for _ in 0..20 {
            let body = curl(client.command("curl")?, &url)?;
            let (task, seen) = body.split_once(' ').context("an answer of another form")?;
            let address = cluster.net().client_address().to_string();
            ensure!(seen == address, "{task} sees {seen}, not {address}");
            tally.count(task);
        }
        ensure!(tally.0.len() == 2, "not all tasks answer: {:?}", tally.0);
        let counts = tally.0.iter().map(|(task, count)| format!("{task}: {count}"));
        Ok(counts.collect::<Vec<_>>().join(", "))
    })
}
