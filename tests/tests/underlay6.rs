//! A cluster whose nodes have IPv6 addresses alone: it forms, and carries both families between its tasks by both paths.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use mesh_tests::{
    Binaries, Cluster, Lifetime, Prefix, Stream, Task, TaskSpec, Tcpdump, TestNet, Wire, curl, output,
    run_on, wait,
};

const SOON: Duration = Duration::from_secs(5);
const MEGABYTE: u64 = 1 << 20;
const SIX: Wire = Wire { v4: false, v6: true, mtu: 1500, second: false };

fn create(cluster: &Cluster) -> Result<()> {
    let words =
        ["network", "create", "--subnet", "10.10.3.0/24", "--subnet", "fd00:3::/64", "--attachable", "prod"];
    cluster[0].ctl(&words)?;
    cluster[0].ctl(&["service", "create", "--network", "prod", "--publish", "8080:80", "web"])?;
    cluster.wait_for_view()
}

fn stream(from: &Task, to: &Task, address: IpAddr, port: u16) -> Result<Stream> {
    let listener = to.inside(move || TcpListener::bind((address, port)))?.context("a port")?;
    let server = SocketAddr::from((address, port));
    let connect =
        || from.inside(|| TcpStream::connect_timeout(&server, Duration::from_secs(1)))?.context("connect");
    Stream::start(listener, wait("a connection between tasks", 2 * SOON, connect)?)
}

fn carries_all(cluster: &Cluster) -> Result<()> {
    let spec = |name, service| TaskSpec { name, network: "prod", service, ..TaskSpec::default() };
    let web = cluster[1].run_nginx(&spec("web1", Some("web")))?;
    let asker = cluster[0].run_idle(&spec("asker", None))?;
    ensure!(web.task.addresses()?.len() == 2, "{:?}", web.task.addresses()?);
    for (place, address) in web.task.addresses()?.into_iter().enumerate() {
        stream(&asker, &web.task, address, 7000 + place as u16)?
            .goes_on(8 * MEGABYTE, 4 * SOON)
            .with_context(|| address.to_string())?;
    }
    let from = asker.address()?;
    let ask = || output(asker.command("curl")?.args(["-s", "-m3", "-4", "http://web/"]));
    let body = wait("the VIP", SOON, ask)?;
    ensure!(body.trim() == format!("web1 {from}"), "{body}");
    // The node without the task, by localhost: IPv4 sockets of a host that has no other IPv4.
    let own = &cluster.net().nodes()[0];
    let body = wait("localhost", SOON, || {
        curl(own.command("curl")?, &format!("http://{}:8080/", Ipv4Addr::LOCALHOST))
    })?;
    ensure!(body.starts_with("web1 "), "{body}");
    let status = cluster[0].ctl_json(&["status"])?;
    ensure!(status["data_path"]["task_mtu"] == 1430, "{status}");
    ensure!(status["data_path_addr"] == cluster.net().address6(0).to_string(), "{status}");
    Ok(())
}

/// What tcpdump says of the first VXLAN packets that the second node receives while `story` goes on.
fn watch_outer_headers(cluster: &Cluster, story: impl FnOnce() -> Result<()>) -> Result<String> {
    let tcpdump = Tcpdump::start(&cluster.net().nodes()[1], 3, "udp port 4789")?;
    story()?;
    tcpdump.seen()
}

#[test]
fn a_cluster_over_ipv6_alone() -> Result<()> {
    run_on(SIX, 2, |cluster| {
        create(cluster)?;
        carries_all(cluster)
    })
}

/// Nodes with both families, and the command that `init` prints: it has the manager's address and no other.
#[test]
fn a_node_joins_by_the_family_of_its_manager() -> Result<()> {
    let net = TestNet::on(Prefix::unique(), 2, Wire { v4: true, ..SIX })?;
    let cluster = Cluster::daemons_on(net, Binaries::find()?, Lifetime::Owner)?;
    let story = || {
        let (first, second) = (&cluster[0], &cluster[1]);
        let address = cluster.net().address6(0).to_string();
        let printed = first.ctl(&["init", "--name", "n1", "--advertise-addr", &address])?;
        let command = printed.lines().map(str::trim).find(|line| line.starts_with("meshctl join "));
        let command = command.with_context(|| format!("no command to join with: {printed}"))?;
        let words: Vec<&str> = command.split(' ').skip(1).chain(["--name", "n2"]).collect();
        second.ctl(&words)?;
        let own = second.ctl_json(&["status"])?;
        let address = cluster.net().address6(1).to_string();
        ensure!(own["advertise_addr"] == address && own["data_path_addr"] == address, "{own}");
        cluster.wait_for_members(2)
    };
    story().map_err(|error| cluster.explain(error))
}

#[test]
fn the_general_path_over_ipv6_with_and_without_checksums() -> Result<()> {
    run_on(SIX, 2, |cluster| {
        create(cluster)?;
        for (setting, said) in
            [("path = \"general\"", "by configuration"), ("outer_checksum = true", "checksum")]
        {
            for node in cluster.nodes() {
                node.stop()?;
                let config = fs::read_to_string(node.config())?;
                let kept: Vec<_> =
                    config.lines().filter(|l| !l.starts_with("path") && !l.starts_with("outer")).collect();
                fs::write(node.config(), format!("{setting}\n{}\n", kept.join("\n")))?;
                node.start()?;
            }
            cluster.wait_for_members(2)?;
            cluster.wait_for_view()?;
            let seen =
                watch_outer_headers(cluster, || carries_all(cluster)).with_context(|| setting.to_owned())?;
            // Over IPv6 the kernel writes one in any case.
            ensure!(seen.contains("VXLAN") && !seen.contains("no cksum"), "{setting}: {seen}");
            let status = cluster[0].ctl(&["status"])?;
            ensure!(status.contains("general") && status.contains(said), "{status}");
        }
        Ok(())
    })
}
