//! The library itself: namespaces reach each other, can be cut off and healed, and nothing of them stays,
//! not even after a process that could not clean up.

use std::{net::UdpSocket, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use mesh_tests::{GATEWAY, NetNs, OUTSIDE, Prefix, StubDns, TestNet, output, resolve, succeed};

fn ping(from: &NetNs, to: impl ToString) -> Result<()> {
    succeed(from.command("ping")?.args(["-c1", "-W3", "-n", "-q", &to.to_string()]))
}

#[test]
fn nodes_reach_each_other_until_they_are_cut_off() -> Result<()> {
    let prefix = Prefix::unique();
    let net = TestNet::create(prefix.clone(), 2)?;
    let [first, second] = net.nodes() else { anyhow::bail!("two nodes were asked for") };
    ping(first, net.address(1))?;
    ping(net.client(), net.address(1))?;
    ping(second, GATEWAY)?;
    ping(second, OUTSIDE)?;
    net.cut(1)?;
    ensure!(ping(first, net.address(1)).is_err(), "a node that is cut off answers");
    net.heal(1)?;
    mesh_tests::wait("the node to be back", Duration::from_secs(10), || ping(first, net.address(1)))?;
    let (folder, namespace) = (prefix.folder(), first.path());
    ensure!(folder.exists() && namespace.exists(), "the net is not there");
    drop(net);
    ensure!(!folder.exists() && !namespace.exists(), "something of the net stays");
    Ok(())
}

#[test]
fn what_a_killed_run_left_is_removed() -> Result<()> {
    // The name of a run of a process that ends when all is made: other tests remove what is left of those that have ended.
    let mut other = Command::new("sleep").arg("60").spawn().context("sleep")?;
    let left = Prefix::fixed(&format!("mt{}-0", other.id()));
    let mut net = TestNet::create(left.clone(), 1)?;
    net.keep();
    drop(net);
    let kept = left.folder().exists();
    other.kill().context("sleep")?;
    other.wait().context("sleep")?;
    ensure!(kept, "the net was not kept");
    let _next = TestNet::create(Prefix::unique(), 0)?;
    ensure!(!left.folder().exists(), "the folder stays");
    ensure!(!Path::new("/run/netns").join(left.namespace("n1")).exists(), "a namespace stays");
    Ok(())
}

#[test]
fn names_are_resolved_inside() -> Result<()> {
    let net = TestNet::create(Prefix::unique(), 0)?;
    let socket = net.hub().run(|| UdpSocket::bind((GATEWAY, 53)))?.context("port 53")?;
    let _stub = StubDns::serve(socket, OUTSIDE)?;
    let dig = ["+short", "+tries=1", "@192.168.77.1", "outside.example"];
    ensure!(
        output(net.client().command("dig")?.args(dig))?.trim() == OUTSIDE.to_string(),
        "dig sees another"
    );
    let server = (GATEWAY, 53).into();
    let found = net.client().run(|| resolve(server, "outside.example", Duration::from_secs(1)))??;
    ensure!(found == [OUTSIDE], "resolve sees {found:?}");
    Ok(())
}
