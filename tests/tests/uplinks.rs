//! The node's uplinks: one that goes and comes back, several of them, routes by another one, and a data path address that
//! moves or changes; MTUs of 1420 and 9000 that change under traffic.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Cluster, NetNs, Node, Stream, Task, TaskSpec, Wire, curl, output, run, run_on, wait};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(5);
const MEGABYTE: u64 = 1 << 20;

fn create(cluster: &Cluster) -> Result<()> {
    cluster[0].ctl(&["network", "create", "--subnet", "10.10.3.0/24", "--attachable", "prod"])?;
    cluster[0].ctl(&["service", "create", "--network", "prod", "--publish", "8080:80", "web"])?;
    cluster.wait_for_view()
}

fn task<'a>(name: &'a str, service: Option<&'a str>) -> TaskSpec<'a> {
    TaskSpec { name, network: "prod", service, ..TaskSpec::default() }
}

/// A stream from one task to the other over their network.
fn stream(from: &Task, to: &Task) -> Result<Stream> {
    let listener = to.inside(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 7000)))?.context("port 7000")?;
    let server = SocketAddr::from((to.address()?, 7000));
    let connect =
        || from.inside(|| TcpStream::connect_timeout(&server, Duration::from_secs(1)))?.context("connect");
    Stream::start(listener, wait("a connection between tasks", SOON, connect)?)
}

fn uplinks(node: &Node) -> Result<Vec<String>> {
    let status = node.ctl_json(&["status"])?;
    let uplinks = status["data_path"]["uplinks"].as_array().context("`status` has no uplinks")?;
    Ok(uplinks.iter().filter_map(|u| u["interface"].as_str()).map(str::to_owned).collect())
}

/// Waits until these are the node's uplinks.
fn are_uplinks(node: &Node, wanted: &[&str]) -> Result<()> {
    wait("the right uplinks", 2 * SOON, || {
        let now = uplinks(node)?;
        ensure!(now == wanted, "{}: {now:?}, not {wanted:?}", node.name());
        Ok(())
    })
}

/// Bytes that went out by a link of a namespace.
fn sent_by(namespace: &NetNs, link: &str) -> Result<u64> {
    let text = output(namespace.command("ip")?.args(["-json", "-s", "link", "show", "dev", link]))?;
    let links: Value = serde_json::from_str(&text).context("what ip prints")?;
    links[0]["stats64"]["tx"]["bytes"].as_u64().context("no counter")
}

#[test]
fn an_uplink_that_went_is_used_again_when_it_is_back() -> Result<()> {
    run(2, |cluster| {
        create(cluster)?;
        let web = cluster[1].run_nginx(&task("web1", Some("web")))?;
        let net = cluster.net();
        let fetch =
            |node: usize| curl(net.client().command("curl")?, &format!("http://{}:8080/", net.address(node)));
        let expected = format!("web1 {}", net.client_address());
        for node in [0, 1] {
            ensure!(wait("the port", SOON, || fetch(node))? == expected, "node {node}");
        }
        for node in [0, 1] {
            net.unplug_node(node)?;
            wait("a word about the uplink", SOON, || {
                let status = cluster[node].ctl(&["status"])?;
                ensure!(
                    status.contains("no interface of this node has address"),
                    "nothing is said: {status}"
                );
                Ok(())
            })?;
            net.plug_node(node)?;
            let body = wait("the port after the uplink is back", 4 * SOON, || fetch(node))?;
            ensure!(body == expected, "{body}");
        }
        // Also from the task's side, which found no way out meanwhile.
        let asker = cluster[0].run_idle(&task("asker", None))?;
        let url = format!("http://{}/", web.task.address()?);
        wait("the other node's task", 2 * SOON, || curl(asker.command("curl")?, &url))?;
        wait("no word about it any more", SOON, || {
            let status = cluster[0].ctl(&["status"])?;
            ensure!(!status.contains("behind"), "{status}");
            Ok(())
        })
    })
}

#[test]
fn several_uplinks_serve_and_lead_to_other_nodes() -> Result<()> {
    run_on(Wire { second: true, ..Wire::default() }, 2, |cluster| {
        create(cluster)?;
        let net = cluster.net();
        for node in cluster.nodes() {
            are_uplinks(node, &["eth0", "eth1"])?;
        }
        let web = cluster[1].run_nginx(&task("web1", Some("web")))?;
        let asker = cluster[0].run_idle(&task("asker", None))?;
        // Clients of the second segment, for the node with the task and the one without.
        for (address, seen) in [("192.168.78.11", "192.168.78.100"), ("192.168.78.12", "192.168.78.100")] {
            let fetch = || curl(net.client().command("curl")?, &format!("http://{address}:8080/"));
            let body = wait("the port on the second segment", SOON, fetch)?;
            ensure!(body == format!("web1 {seen}"), "{address}: {body}");
        }
        // An interface that comes later, named as VLAN devices are.
        let (node, client) = (&net.nodes()[0], net.client());
        for (namespace, address) in [(node, "192.168.79.11"), (client, "192.168.79.100")] {
            namespace.ip("link add link eth1 name eth1.7 type macvlan mode bridge\nlink set eth1.7 up")?;
            namespace.ip(&format!("addr add {address}/24 dev eth1.7"))?;
        }
        let fetch = || curl(client.command("curl")?, "http://192.168.79.11:8080/");
        let body = wait("the port on an interface upon another", SOON, fetch)?;
        ensure!(body == "web1 192.168.79.100", "{body}");
        are_uplinks(&cluster[0], &["eth0", "eth1", "eth1.7"])?;
        node.ip("link del eth1.7")?;

        let stream = stream(&asker, &web.task)?;
        stream.goes_on(MEGABYTE, SOON)?;
        // Over the second segment, for VTEP addresses of the first: both nodes' routes say so.
        net.nodes()[0].ip("route add 192.168.77.12/32 via 192.168.78.12 dev eth1")?;
        net.nodes()[1].ip("route add 192.168.77.11/32 via 192.168.78.11 dev eth1")?;
        let moved = || {
            let before = sent_by(&net.nodes()[0], "eth1")?;
            stream.goes_on(4 * MEGABYTE, SOON)?;
            let sent = sent_by(&net.nodes()[0], "eth1")? - before;
            ensure!(sent > 3 * MEGABYTE, "only {sent} bytes went by eth1");
            Ok(())
        };
        wait("the stream to change over", 3 * SOON, moved)?;
        let fetch = || curl(net.client().command("curl")?, &format!("http://{}:8080/", net.address(0)));
        let body = wait("the published port", SOON, fetch)?;
        ensure!(body == format!("web1 {}", net.client_address()), "{body}");
        // And back, with the interface gone.
        net.nodes()[1].ip("route del 192.168.77.11/32")?;
        net.nodes()[0].ip("link set eth1 down")?;
        wait("the stream to go on by eth0", 4 * SOON, || stream.goes_on(4 * MEGABYTE, SOON))?;
        are_uplinks(&cluster[0], &["eth0"])
    })
}

#[test]
fn uplinks_of_the_configuration_replace_the_choice() -> Result<()> {
    run_on(Wire { second: true, ..Wire::default() }, 1, |cluster| {
        let node = &cluster[0];
        node.stop()?;
        let config = std::fs::read_to_string(node.config())?;
        std::fs::write(node.config(), format!("uplinks = [\"eth7\"]\nuplink_hook = \"tc\"\n{config}"))?;
        node.start()?;
        are_uplinks(node, &["eth0"])?;
        let status = node.ctl_json(&["status"])?;
        let warnings = status["warnings"].to_string();
        ensure!(warnings.contains("eth7"), "{warnings}");
        let uplink = &status["data_path"]["uplinks"][0];
        ensure!(uplink["hook"] == "tcx" || uplink["hook"] == "clsact", "{uplink}");
        ensure!(uplink["reason"].as_str().is_some_and(|r| r.contains("configuration")), "{uplink}");
        Ok(())
    })
}

/// The MTUs of both ends of a task's link, and what the node says.
fn mtus(node: &Node, task: &Task) -> Result<[u64; 3]> {
    let mtu = |text: String, name: &str| -> Result<u64> {
        let links: Value = serde_json::from_str(&text).context("what ip prints")?;
        let links = links.as_array().into_iter().flatten();
        let mut named = links.filter(|l| l["ifname"].as_str().is_some_and(|n| n.starts_with(name)));
        named.next().and_then(|l| l["mtu"].as_u64()).with_context(|| format!("no link {name}: {text}"))
    };
    let inside = mtu(output(task.command("ip")?.args(["-json", "link"]))?, "eth0")?;
    let outside = mtu(output(node.command("ip")?.args(["-json", "link"]))?, "msh")?;
    let said = node.ctl_json(&["status"])?["data_path"]["task_mtu"].as_u64().context("no task_mtu")?;
    Ok([inside, outside, said])
}

/// Over an underlay whose outer headers take so many bytes.
fn follow_the_mtu(wire: Wire, overhead: u64) -> Result<()> {
    run_on(Wire { mtu: 1420, ..wire }, 2, |cluster| {
        create(cluster)?;
        let tasks = [0, 1].map(|n: usize| cluster[n].run_idle(&task(["a", "b"][n], None)));
        let [a, b] = tasks;
        let (a, b) = (a?, b?);
        let stream = stream(&a, &b)?;
        stream.goes_on(8 * MEGABYTE, 2 * SOON)?;
        ensure!(mtus(&cluster[0], &a)? == [1420 - overhead; 3], "{:?}", mtus(&cluster[0], &a)?);
        for mtu in [9000, 1420, 1300, 1500] {
            for node in [0, 1] {
                cluster.net().set_mtu(node, mtu)?;
            }
            for (node, task) in [(0, &a), (1, &b)] {
                let expected = [u64::from(mtu) - overhead; 3];
                wait("the tasks' MTU", SOON, || {
                    let now = mtus(&cluster[node], task)?;
                    ensure!(now == expected, "{now:?} after the uplink's MTU became {mtu}");
                    Ok(())
                })?;
            }
            stream.goes_on(8 * MEGABYTE, 4 * SOON).with_context(|| format!("MTU {mtu}"))?;
        }
        Ok(())
    })
}

#[test]
fn the_mtu_of_the_uplink_is_followed_under_traffic() -> Result<()> {
    follow_the_mtu(Wire::default(), 50)
}

#[test]
fn the_mtu_of_the_uplink_is_followed_over_ipv6() -> Result<()> {
    follow_the_mtu(Wire { v4: false, v6: true, ..Wire::default() }, 70)
}

#[test]
fn a_network_s_own_mtu_is_a_ceiling() -> Result<()> {
    run(1, |cluster| {
        let node = &cluster[0];
        node.ctl(&["network", "create", "--attachable", "--opt", "mtu=1400", "prod"])?;
        let task = node.run_idle(&task("a", None))?;
        ensure!(mtus(node, &task)?[..2] == [1400, 1400], "{:?}", mtus(node, &task)?);
        for (mtu, expected) in [(1440, 1390), (1500, 1400), (9000, 1400)] {
            cluster.net().set_mtu(0, mtu)?;
            wait("the task's MTU", SOON, || {
                let now = mtus(node, &task)?;
                ensure!(now == [expected, expected, u64::from(mtu) - 50], "{now:?} with {mtu}");
                Ok(())
            })?;
        }
        Ok(())
    })
}

#[test]
fn a_data_path_address_that_moves_or_changes_is_followed() -> Result<()> {
    let net =
        mesh_tests::TestNet::on(mesh_tests::Prefix::unique(), 2, Wire { second: true, ..Wire::default() })?;
    let cluster = Cluster::daemons_on(net, mesh_tests::Binaries::find()?, mesh_tests::Lifetime::Owner)?;
    let told = (|| {
        cluster.init()?;
        let token = cluster.worker_token()?;
        let manager = format!("{}:2377", cluster[0].address());
        let advertised = cluster[1].address().to_string();
        cluster[1].ctl(&[
            "join",
            "--token",
            &token,
            "--name",
            "n2",
            "--advertise-addr",
            &advertised,
            "--data-path-addr",
            "eth1",
            &manager,
        ])?;
        cluster.wait_for_members(2)?;
        create(&cluster)?;
        follow_the_address(&cluster)
    })();
    told.map_err(|error| cluster.explain(error))
}

fn follow_the_address(cluster: &Cluster) -> Result<()> {
    let net = cluster.net();
    let (first, second) = (&net.nodes()[0], &net.nodes()[1]);
    // The first node's VTEP is on the other segment; the routes between lead over the second one.
    first.ip("route replace 192.168.78.12/32 dev eth1 src 192.168.77.11")?;
    second.ip("route add 192.168.77.11/32 dev eth1")?;
    let a = cluster[0].run_idle(&task("a", None))?;
    let b = cluster[1].run_idle(&task("b", None))?;
    let stream = stream(&a, &b)?;
    stream.goes_on(MEGABYTE, 2 * SOON)?;
    let known = |address: &str| {
        let address: IpAddr = address.parse()?;
        wait("the manager to know the address", 2 * SOON, || {
            let nodes = cluster[0].ctl(&["node", "inspect", "n2"])?;
            ensure!(nodes.contains(&address.to_string()), "{nodes}");
            Ok(())
        })
    };
    known("192.168.78.12")?;
    // Another address, as after a new lease.
    second.ip("addr del 192.168.78.12/24 dev eth1\naddr add 192.168.78.112/24 dev eth1\nroute replace 192.168.77.11/32 dev eth1")?;
    first.ip("route add 192.168.78.112/32 dev eth1 src 192.168.77.11")?;
    stream.goes_on(MEGABYTE, 4 * SOON).context("after the address changed")?;
    known("192.168.78.112")?;
    // A restart does not go back to what was said when it joined.
    cluster[1].kill()?;
    stream.goes_on(MEGABYTE, SOON)?;
    cluster[1].start()?;
    stream.goes_on(MEGABYTE, 2 * SOON).context("after the restart")?;
    wait("the address that it had last", SOON, || {
        let status = cluster[1].ctl_json(&["status"])?;
        ensure!(status["data_path_addr"] == "192.168.78.112", "{status}");
        Ok(())
    })
}

/// Over IPv6: an address goes, another one is there, and the stream goes on.
#[test]
fn an_ipv6_data_path_address_that_changes_is_followed() -> Result<()> {
    run_on(Wire { v4: false, v6: true, ..Wire::default() }, 2, |cluster| {
        create(cluster)?;
        let (a, b) = (cluster[0].run_idle(&task("a", None))?, cluster[1].run_idle(&task("b", None))?);
        let stream = stream(&a, &b)?;
        stream.goes_on(MEGABYTE, SOON)?;
        let (node, old) = (&cluster.net().nodes()[1], cluster.net().address6(1));
        let new = "fd77::22";
        node.ip(&format!("addr add {new}/64 dev eth0 nodad\naddr del {old}/64 dev eth0"))?;
        wait("the new address", 2 * SOON, || {
            let status = cluster[1].ctl_json(&["status"])?;
            ensure!(status["data_path_addr"] == new && status["advertise_addr"] == new, "{status}");
            Ok(())
        })?;
        wait("the stream to go on", 4 * SOON, || stream.goes_on(4 * MEGABYTE, SOON))?;
        cluster.wait_for_members(2)
    })
}
