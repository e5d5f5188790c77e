//! Nodes whose time of day is hours and days off, and jumps while their daemons run.

use std::net::IpAddr;

use mesh_tests::Clock;

use super::*;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// Sets a node's clock.
type Jump = fn(&Clock) -> Result<()>;

fn session(node: &Node) -> Result<String> {
    let status = node.ctl_json(&["status"])?;
    Ok(status["manager_session"].as_str().unwrap_or_default().to_owned())
}

fn wait_for_session(node: &Node) -> Result<()> {
    // A daemon that was refused for a while asks every minute.
    wait("a session", 2 * SOON, || {
        let session = session(node)?;
        ensure!(session.starts_with("connected"), "{}: {session}", node.name());
        Ok(())
    })
}

/// A namespace on `node`, attached; its address.
fn attach(cluster: &Cluster, node: &Node, name: &str, kept: &mut Vec<NetNs>) -> Result<IpAddr> {
    let namespace = NetNs::create(&cluster.net().prefix().namespace(name))?;
    let path = namespace.path().display().to_string();
    node.ctl(&["attach", "--network", "prod", "--name", name, &path])?;
    let words = ["-json", "-4", "addr", "show", "dev", "eth0"];
    let text = mesh_tests::output(namespace.command("ip")?.args(words))?;
    kept.push(namespace);
    let links: serde_json::Value = serde_json::from_str(&text).context("what ip prints")?;
    let address =
        links[0]["addr_info"][0]["local"].as_str().with_context(|| format!("no address: {text}"))?;
    address.parse().context("an address")
}

/// Starts all daemons by clocks of their own.
fn clocked(count: u8, set: &[Jump]) -> Result<(Cluster, Vec<Clock>)> {
    let cluster = Cluster::daemons(Prefix::unique(), count, Binaries::find()?, Lifetime::Owner)?;
    let mut clocks = Vec::new();
    let started = cluster.nodes().iter().enumerate().try_for_each(|(index, node)| {
        node.stop()?;
        let clock = Clock::of(node)?;
        if let Some(set) = set.get(index) {
            set(&clock)?;
        }
        clock.start(node)?;
        clocks.push(clock);
        Ok(())
    });
    match started {
        Ok(()) => Ok((cluster, clocks)),
        Err(error) => Err(cluster.explain(error)),
    }
}

/// Clocks that are minutes and days off from the beginning, and then jump by days, months and years on every node in turn, the
/// one that leads first: who leads goes on, changes are decided, sessions stay, no request fails and no address is given twice.
#[test]
fn clocks_that_jump_change_nothing() -> Result<()> {
    let (cluster, clocks) = clocked(
        4,
        &[
            |clock| clock.ahead(20 * Duration::from_secs(60)),
            |clock| clock.behind(5 * HOUR),
            |clock| clock.ahead(2 * DAY),
            |clock| clock.behind(3 * DAY),
        ],
    )?;
    told(cluster, |cluster| {
        cluster.form()?;
        let names = ["n1", "n2", "n3"];
        cluster[0].ctl(&["node", "promote", "n2", "n3"])?;
        wait_for_managers(&cluster[0], &names)?;
        let (_task, load) = publish(cluster)?;
        let leads = leader(&cluster[1])?;
        let (mut number, mut kept, mut addresses) = (0, Vec::new(), Vec::new());
        let jumps: [Jump; 5] = [
            |clock| clock.ahead(10 * DAY),
            |clock| clock.ahead(400 * DAY),
            |clock| clock.behind(400 * DAY),
            |clock| clock.ahead(80 * DAY),
            Clock::right,
        ];
        let first = clocks.iter().zip(cluster.nodes()).position(|(_, node)| node.name() == leads);
        let mut order: Vec<usize> = (0..cluster.nodes().len()).collect();
        order.swap(0, first.context("who leads")?);
        for jumping in order {
            for (turn, jump) in jumps.iter().enumerate() {
                jump(&clocks[jumping])?;
                // What looks at clocks does so within a second, and nothing is heard for five when a session has ended.
                thread::sleep(Duration::from_secs(2));
                let mut made = Vec::new();
                for manager in &cluster.nodes()[..3] {
                    made.push(create_by_any(&[manager], "jumped", &mut number)?);
                }
                for node in cluster.nodes() {
                    wait_for_networks(node, &made)?;
                }
                let name = format!("t{jumping}{turn}");
                addresses.push(attach(cluster, &cluster[jumping], &name, &mut kept)?);
                ensure!(leader(&cluster[1])? == leads, "another leads after a jump of {jumping}");
            }
        }
        for node in cluster.nodes() {
            wait_for_session(node)?;
        }
        wait_for_managers(&cluster[0], &names)?;
        let all = addresses.len();
        addresses.sort();
        addresses.dedup();
        ensure!(addresses.len() == all, "an address was given twice: {addresses:?}");
        load.end().none_failed()
    })
}

/// A daemon that starts with a clock that is years off says so; its tasks go on, and it follows again when the clock is right. One
/// that wants to join is told before anything is made of it. Tokens know no time.
#[test]
fn a_wrong_clock_is_told() -> Result<()> {
    let (cluster, clocks) = clocked(3, &[])?;
    told(cluster, |cluster| {
        let joining = &cluster[2];
        cluster.init()?;
        cluster.join(1)?;
        let (_task, load) = {
            cluster[0].ctl(&["network", "create", "--attachable", "prod"])?;
            cluster[0].ctl(&["service", "create", "--network", "prod", "--publish", "8080:80", "web"])?;
            let spec =
                TaskSpec { name: "web1", network: "prod", service: Some("web"), ..TaskSpec::default() };
            wait("the network", SOON, || wait_for_networks(&cluster[1], &["prod".to_owned()]))?;
            let task = cluster[1].run_nginx(&spec)?;
            let server = SocketAddr::from((cluster[1].address(), 8080));
            let client = cluster.net().client().path();
            wait("the service", SOON, || NetNs::run_at(&client, || get(server, Duration::from_secs(2)))?)?;
            (task, Load::start(&client, vec![server], 20, Duration::from_secs(10))?)
        };
        let token = cluster.worker_token()?;
        let manager = SocketAddr::from((cluster[0].address(), 2377)).to_string();
        let (name, address) = (joining.name(), joining.address().to_string());
        let join = ["join", "--token", &token, "--name", &name, "--advertise-addr", &address, &manager];
        let jumps: [Jump; 2] = [|clock| clock.ahead(400 * DAY), |clock| clock.behind(400 * DAY)];
        for jump in jumps {
            jump(&clocks[2])?;
            let refused = joining.refused(&join)?;
            ensure!(refused.message.contains("see that both clocks are right"), "{}", refused.message);
            ensure!(nodes(&cluster[0])?.len() == 2, "something was made of it");

            jump(&clocks[1])?;
            cluster[1].kill()?;
            clocks[1].start(&cluster[1])?;
            status_says(&cluster[1], "see that the clock is right")?;
            ensure!(!session(&cluster[1])?.starts_with("connected"), "a certificate of another time is good");
            clocks[1].right()?;
            wait_for_session(&cluster[1])?;
            let status = cluster[1].ctl(&["status"])?;
            ensure!(!status.contains("see that the clock"), "{status}");
        }
        clocks[2].ahead(30 * DAY)?;
        joining.ctl(&join)?;
        cluster.wait_for_members(3)?;
        wait_for_session(joining)?;
        load.end().none_failed()
    })
}
