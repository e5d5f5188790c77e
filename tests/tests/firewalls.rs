//! Firewalls that people use, real ones: what ufw and firewalld close on a node, that the doctor names them, that what it tells
//! to do is what docs/firewall-and-cloud.md says, and that it helps.

use std::{
    fs,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use mesh_tests::{
    Cluster, Firewall, Nginx, Node, OUTSIDE, OUTSIDE6, Task, TaskSpec, Wire, curl, output, run_on, wait,
};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(40);
/// A port beyond the gateway.
const PORT: u16 = 9000;

/// A cluster of two nodes, the first of which gets a firewall.
struct Story<'a> {
    cluster: &'a Cluster,
    /// A task of the service `web`, on the second node.
    web: Nginx,
    /// A task on the first.
    near: Task,
    _outside: [TcpListener; 2],
}

impl<'a> Story<'a> {
    fn begin(cluster: &'a Cluster) -> Result<Self> {
        for node in cluster.nodes() {
            // The harness makes it as any folder; packages do not.
            fs::set_permissions(node.state_folder(), fs::Permissions::from_mode(0o700))?;
        }
        let subnets = ["--subnet", "10.10.3.0/24", "--subnet", "fd00:3::/64", "--attachable", "prod"];
        cluster[0].ctl(&[&["network", "create"], &subnets[..]].concat())?;
        cluster[0].ctl(&["service", "create", "--network", "prod", "--publish", "8080:80", "web"])?;
        cluster.wait_for_view()?;
        let task = |name, service| TaskSpec { name, network: "prod", service, ..TaskSpec::default() };
        let web = cluster[1].run_nginx(&task("web1", Some("web")))?;
        let near = cluster[0].run_idle(&task("near", None))?;
        let listen = |address: IpAddr| -> Result<TcpListener> {
            cluster.net().hub().run(|| TcpListener::bind((address, PORT)))?.context("a port outside")
        };
        let story =
            Self { cluster, web, near, _outside: [listen(OUTSIDE.into())?, listen(OUTSIDE6.into())?] };
        story.overlay()?;
        story.way_out()?;
        story.published()?;
        well(&cluster[0])?;
        well(&cluster[1])?;
        Ok(story)
    }

    /// Tasks of both nodes reach each other, now.
    fn overlay(&self) -> Result<()> {
        let (near, far) = (&self.near, &self.web.task);
        let ask = |from: &Task, to: &Task| {
            let ping =
                ["-c", "2", "-i", "0.2", "-W", "1", "-q", &to.address()?.to_string()].map(str::to_owned);
            output(from.command("ping")?.args(ping)).map(drop)
        };
        wait("the overlay", SOON, || ask(near, far).and_then(|()| ask(far, near)))
    }

    /// The task on the first node gets out in both families.
    fn way_out(&self) -> Result<()> {
        [OUTSIDE.into(), OUTSIDE6.into()]
            .into_iter()
            .try_for_each(|to| wait("the way out", SOON, || self.out_to(to)))
    }

    fn out_to(&self, to: IpAddr) -> Result<()> {
        let connect =
            move || TcpStream::connect_timeout(&SocketAddr::from((to, PORT)), Duration::from_millis(700));
        self.near.inside(connect)?.map(drop).with_context(|| to.to_string())
    }

    /// A client and the first node itself reach the task of the second by the first node's published port.
    fn published(&self) -> Result<()> {
        let node = &self.cluster[0];
        let far = format!("http://{}:8080/", node.address());
        let client = || curl(self.cluster.net().client().command("curl")?, &far);
        let told = wait("the published port", SOON, client)?;
        let wanted = format!("web1 {}", self.cluster.net().client_address());
        ensure!(told == wanted, "{told} instead of {wanted}");
        wait("the port on localhost", SOON, || curl(node.command("curl")?, "http://localhost:8080/"))
            .map(drop)
    }

    /// What the firewall has closed is told on both nodes, and all is open when the cures that are told are followed.
    fn close_and_open(&self, firewall: &Firewall, keeper: &str) -> Result<()> {
        let (here, there) = (&self.cluster[0], &self.cluster[1]);
        let on_n1 = "`meshctl doctor` on n1 names a firewall of its own";
        for port in ["2377/tcp", "7946/tcp"] {
            finds(there, &["ports n1", &format!("{port} of n1"), "not reached from here", on_n1])?;
        }
        // Answers to what this node sends are let in.
        self.cluster.wait_for_members(2)?;
        let drops = format!("{keeper} drops 2377/tcp, 7946/tcp, 7946/udp, 4789/udp (chain ");
        let told = finds(here, &["firewall: ", &drops])?;
        follow(&told, firewall, keeper)?;
        well(there)?;

        // Nobody has let anything be forwarded.
        for to in [IpAddr::from(OUTSIDE), OUTSIDE6.into()] {
            ensure!(self.out_to(to).is_err(), "{keeper} lets pass what is forwarded to {to}");
        }
        let closed =
            format!("the host's firewall ({keeper}) drops forwarded packets, so tasks have no way out by ip");
        let told = wait("nothing else to find", SOON, || {
            let told = problems(here)?;
            ensure!(told.iter().all(|line| line.contains(&closed)), "{told:#?}");
            ensure!(told.iter().any(|line| line.contains("ip6")), "{told:#?}");
            Ok(told)
        })?;
        told.iter().try_for_each(|told| follow(told, firewall, keeper))?;
        self.way_out()?;
        well(here)?;
        self.overlay()?;
        self.published()
    }
}

/// What is not well, as lines of check, what was seen, and cure.
fn problems(node: &Node) -> Result<Vec<String>> {
    let output = node.meshctl()?.args(["--format", "json", "doctor", "--problems"]).output()?;
    let findings: Vec<Value> = serde_json::from_slice(&output.stdout).context("the doctor's findings")?;
    let word = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let bad = findings.iter().filter(|finding| finding["level"] != "unchecked");
    let line = |finding: &Value| {
        format!("{}: {} -> {}", word(finding, "check"), word(finding, "what"), word(finding, "cure"))
    };
    Ok(bad.map(line).collect())
}

/// Waits until the doctor tells all of `wanted` in one line, which it gives.
fn finds(node: &Node, wanted: &[&str]) -> Result<String> {
    wait("the doctor to find it", SOON, || {
        let lines = problems(node)?;
        let found = lines.iter().find(|line| wanted.iter().all(|word| line.contains(word)));
        found.cloned().with_context(|| format!("no line with all of {wanted:?} in {lines:#?}"))
    })
}

fn well(node: &Node) -> Result<()> {
    wait("nothing to find", SOON, || {
        let lines = problems(node)?;
        ensure!(lines.is_empty(), "{}: {lines:#?}", node.name());
        Ok(())
    })
}

/// Runs the commands of a cure, which are those of the page.
fn follow(told: &str, firewall: &Firewall, keeper: &str) -> Result<()> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/firewall-and-cloud.md");
    let page = fs::read_to_string(page).context("the page")?;
    let (_, cure) = told.split_once(" -> ").context("a cure")?;
    let commands: Vec<&str> = cure.split('`').skip(1).step_by(2).collect();
    ensure!(!commands.is_empty(), "{told}");
    for command in commands {
        let shown = page.lines().any(|line| line.ends_with(&format!("$ {command}")));
        ensure!(shown, "`{command}`, which the doctor tells of {keeper}, is not on the page");
        firewall.run(command)?;
    }
    Ok(())
}

/// The rules of a namespace, or of a table in it, without counts.
fn rules(mut nft: Command, what: &[&str]) -> Result<String> {
    output(nft.args(["--stateless", "list"]).args(what))
}

/// Runs a story on a cluster of both families, and sees that this machine's own rules stay as they are.
fn beside_the_machine(story: impl FnOnce(&Cluster) -> Result<()>) -> Result<()> {
    let machine = || rules(Command::new("nft"), &["ruleset"]);
    let before = machine()?;
    run_on(Wire { v6: true, ..Wire::default() }, 2, story)?;
    ensure!(machine()? == before, "rules of this machine have changed");
    Ok(())
}

#[test]
fn ufw_is_named_and_opened() -> Result<()> {
    beside_the_machine(|cluster| {
        let story = Story::begin(cluster)?;
        let node = &cluster[0];
        let firewall = Firewall::ufw(node)?;
        firewall.run("ufw --force enable")?;
        // Packets of the overlay and of published ports do not pass it.
        story.overlay()?;
        story.published()?;
        story.close_and_open(&firewall, "ufw")?;

        let own = || {
            Ok::<_, anyhow::Error>([
                rules(node.command("nft")?, &["table", "ip", "meshd"])?,
                rules(node.command("nft")?, &["table", "ip6", "meshd"])?,
            ])
        };
        let before = own()?;
        firewall.run("ufw reload")?;
        ensure!(own()? == before, "reloading changes meshd's tables");
        story.way_out()?;
        firewall.run("ufw disable")?;
        ensure!(own()? == before, "disabling changes meshd's tables");
        story.way_out()
    })
}

#[test]
fn firewalld_is_named_and_opened() -> Result<()> {
    beside_the_machine(|cluster| {
        for node in cluster.nodes() {
            node.stop()?;
            let config = fs::read_to_string(node.config())?;
            fs::write(node.config(), format!("path = \"general\"\n{config}"))?;
            node.start()?;
        }
        cluster.wait_for_members(2)?;
        let story = Story::begin(cluster)?;
        let node = &cluster[0];
        let firewall = Firewall::firewalld(node)?;
        // By the kernel's VXLAN device they do pass it.
        let ask = ["-c", "2", "-i", "0.2", "-W", "1", "-q", &story.web.task.address()?.to_string()]
            .map(str::to_owned);
        let answered = output(story.near.command("ping")?.args(ask));
        ensure!(answered.is_err(), "the general path does not pass the firewall: {answered:?}");
        story.close_and_open(&firewall, "firewalld")?;

        // What the page says of a zone by addresses.
        let ssh = SocketAddr::from((node.address(), 22));
        let _server = cluster.net().nodes()[0].run(|| TcpListener::bind(ssh))?.context("port 22")?;
        let connect = || {
            let asked = cluster.net().nodes()[1].run(|| TcpStream::connect_timeout(&ssh, SOON));
            asked?.map(drop).context("port 22 from n2")
        };
        connect()?;
        let zone = "firewall-cmd --permanent --zone=nodes --add-source=192.168.77.0/24";
        firewall.run(&format!("firewall-cmd --permanent --new-zone=nodes; {zone}; firewall-cmd --reload"))?;
        ensure!(connect().is_err(), "the interface's zone counts as well");
        firewall.run("firewall-cmd --permanent --delete-zone=nodes; firewall-cmd --reload")?;
        connect()?;

        let table = |family, name| rules(node.command("nft")?, &["table", family, name]);
        let before = table("ip", "meshd")?;
        firewall.run("firewall-cmd --reload")?;
        ensure!(table("ip", "meshd")? == before, "reloading changes meshd's table");
        story.way_out()?;
        story.published()?;
        // Nor does meshd change firewalld's, when it starts and when its own goes with the last task.
        let theirs = table("inet", "firewalld")?;
        node.kill()?;
        node.start()?;
        story.way_out()?;
        let Story { mut near, .. } = story;
        near.stop()?;
        wait("meshd's table to go", SOON, || {
            ensure!(table("ip", "meshd").is_err(), "it is there");
            Ok(())
        })?;
        ensure!(table("inet", "firewalld")? == theirs, "meshd changes firewalld's table");
        Ok(())
    })
}
