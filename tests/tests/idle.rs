//! SWARM's acceptance 11, in scaled time: a connection that says nothing outlives what is forgotten by time around it, keeps
//! its task though others would now be chosen, and goes on. That time would end it too, were it not given days.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Cluster, Guest, NetNs, Node, Talk, TaskSpec, UdpEcho, run, wait};

const SOON: Duration = Duration::from_secs(10);
const PATIENTLY: Duration = Duration::from_secs(30);
/// Connections that come and go meanwhile.
const CHURN: usize = 300;

/// Starts the daemons with these seconds in place of minutes and days.
fn conntrack(cluster: &Cluster, settings: &str) -> Result<()> {
    for node in cluster.nodes() {
        node.stop()?;
        let config = fs::read_to_string(node.config())?;
        let own = config.split("[conntrack]").next().unwrap_or_default();
        fs::write(node.config(), format!("{own}[conntrack]\n{settings}\n"))?;
        node.start()?;
    }
    cluster.wait_for_members(cluster.nodes().len())?;
    cluster.wait_for_view()
}

fn greeter(cluster: &Cluster, node: usize, name: &str) -> Result<(Guest, UdpEcho)> {
    let spec = TaskSpec { name, network: "prod", service: Some("talk"), ..TaskSpec::default() };
    let guest = cluster[node].attach_greeter(&spec, 70)?;
    let socket = guest.namespace().run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 9001)))?;
    Ok((guest, UdpEcho::serve(socket.context("port 9001")?, name)?))
}

/// Established flows of a node: those it chose a task for, and those it translates back.
fn established(node: &Node) -> Result<[u64; 2]> {
    let status = node.ctl_json(&["status"])?;
    let tables = status["data_path"]["flows"].as_array();
    let tables = tables.with_context(|| format!("`status` has no flows: {status}"))?;
    let used: Vec<u64> = tables.iter().filter_map(|table| table["used"].as_u64()).collect();
    used.try_into().map_err(|used| anyhow::anyhow!("flows of {used:?}"))
}

/// From where to where, by TCP and UDP.
struct Way {
    from: PathBuf,
    tcp: SocketAddr,
    udp: SocketAddr,
}

#[test]
fn an_idle_connection_outlives_what_is_forgotten() -> Result<()> {
    run(2, |cluster| {
        conntrack(cluster, "tcp_half_closed = 2\ntcp_closing = 1\nudp = 6\nother = 1")?;
        cluster[0].ctl(&["network", "create", "--subnet", "10.10.3.0/24", "--attachable", "prod"])?;
        let publish = ["--publish", "7070:70", "--publish", "9000:9001/udp"];
        cluster[0].ctl(&[&["service", "create", "--network", "prod"], &publish[..], &["talk"]].concat())?;
        cluster.wait_for_view()?;
        let _first = greeter(cluster, 1, "first")?;
        let observer =
            cluster[0].run_idle(&TaskSpec { name: "observer", network: "prod", ..TaskSpec::default() })?;
        let vip: IpAddr = wait("the VIP", SOON, || {
            observer.dig(&["talk"])?.first().context("no address")?.parse().context("an address")
        })?;
        let net = cluster.net();
        let published =
            |from: PathBuf, at: Ipv4Addr| Way { from, tcp: (at, 7070).into(), udp: (at, 9000).into() };
        let ways = [
            published(net.client().path(), net.address(0)),
            published(net.client().path(), net.address(1)),
            published(net.nodes()[0].path(), Ipv4Addr::LOCALHOST),
            Way { from: observer.namespace(), tcp: (vip, 70).into(), udp: (vip, 9001).into() },
        ];
        // The second node chooses for one way, the first for the others; all end at a task of the second.
        let kept = [[3, 0], [1, 4]];

        let mut idle = Vec::new();
        let mut sockets = Vec::new();
        for way in &ways {
            let open = || NetNs::run_at(&way.from, || Talk::open(way.tcp, SOON))?;
            let mut talk = wait("a connection", SOON, open)?;
            for word in ["one", "two"] {
                talk.say(word)?;
            }
            idle.push(talk);
            let bind = || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0));
            sockets.push((NetNs::run_at(&way.from, bind)?.context("a socket")?, way.udp));
        }
        wait("all flows to be established", PATIENTLY, || {
            for talk in &mut idle {
                talk.say("hello")?;
            }
            for (socket, server) in &sockets {
                UdpEcho::ask(socket, *server, "hello")?;
            }
            for (node, [choices, reverse]) in cluster.nodes().iter().zip(kept) {
                let now = established(node)?;
                ensure!(now == [2 * choices, 2 * reverse], "{}: {now:?}", node.name());
            }
            Ok(())
        })?;

        // Others that a new connection would be given, and much that comes and goes.
        let _others = [greeter(cluster, 0, "second")?, greeter(cluster, 0, "third")?];
        for way in &ways {
            wait("other tasks to be chosen", PATIENTLY, || {
                let talk = NetNs::run_at(&way.from, || Talk::open(way.tcp, SOON))??;
                ensure!(talk.name != "first", "always the first");
                Ok(())
            })?;
        }
        net.client().run(|| -> Result<()> {
            for turn in 0..CHURN {
                Talk::open(ways[turn % 2].tcp, SOON)?.say("and gone")?;
            }
            Ok(())
        })??;
        for (node, kept) in cluster.nodes().iter().zip(kept) {
            wait("the others to be forgotten", PATIENTLY, || {
                let now = established(node)?;
                ensure!(now == kept, "{}: {now:?}, not {kept:?}", node.name());
                Ok(())
            })?;
        }
        for (talk, way) in idle.iter_mut().zip(&ways) {
            talk.say("still there?").with_context(|| format!("{} from {}", way.tcp, way.from.display()))?;
        }
        for (node, kept) in cluster.nodes().iter().zip(kept) {
            ensure!(established(node)? == kept, "{}: {:?}", node.name(), established(node)?);
        }

        // The same flows, had they been given a second.
        conntrack(cluster, "tcp_established = 1")?;
        for node in cluster.nodes() {
            wait("the idle ones to be forgotten", PATIENTLY, || {
                let now = established(node)?;
                ensure!(now == [0, 0], "{}: {now:?}", node.name());
                Ok(())
            })?;
        }
        Ok(())
    })
}
