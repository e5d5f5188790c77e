//! Tasks that are checked: nobody is led to one that does not work, and all are led back when it does.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Cluster, Greeter, Guest, Load, NetNs, Node, Task, TaskSpec, get, run, wait};

/// On a machine that does much else.
const SOON: Duration = Duration::from_secs(30);
const REQUEST: Duration = Duration::from_secs(8);
const QUICK: [&str; 6] = ["--health-interval", "1s", "--health-timeout", "2s", "--health-retries", "2"];

fn create(cluster: &Cluster, name: &str, words: &[&str]) -> Result<()> {
    let create = ["service", "create", "--network", "prod"];
    cluster[0].ctl(&[&create[..], &QUICK[..], words, &[name][..]].concat()).map(drop)
}

fn network(cluster: &Cluster) -> Result<()> {
    // It may have been started a moment ago.
    wait("a manager that decides", SOON, || {
        cluster[0].ctl(&["network", "create", "--subnet", "10.10.3.0/24", "--attachable", "prod"]).map(drop)
    })
}

fn spec<'a>(name: &'a str, service: &'a str) -> TaskSpec<'a> {
    TaskSpec { name, network: "prod", service: Some(service), ..TaskSpec::default() }
}

/// A task on each node that asks for names: what it is told, that node's data path does.
fn observers(cluster: &Cluster) -> Result<Vec<Task>> {
    let names = ["observer1", "observer2", "observer3"];
    let of = |(node, name): (&Node, &'static str)| {
        node.run_idle(&TaskSpec { name, network: "prod", ..TaskSpec::default() })
    };
    cluster.nodes().iter().zip(names).map(of).collect()
}

/// The task's health and the reason, as `node` tells.
fn health(node: &Node, service: &str, task: &str) -> Result<(String, String)> {
    let tasks = node.ctl_json(&["service", "ps", service])?;
    let found = tasks.as_array().into_iter().flatten().find(|t| t["name"] == task);
    let found = found.with_context(|| format!("{} knows no task {task}: {tasks}", node.name()))?;
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    Ok((text("health"), text("health_note")))
}

/// Waits until every node tells so; the reason holds `why`.
fn wait_for(cluster: &Cluster, service: &str, task: &str, wanted: &str, why: &str) -> Result<()> {
    for node in cluster.nodes() {
        wait("the task's health", SOON, || {
            let (is, note) = health(node, service, task)?;
            ensure!(is == wanted && note.contains(why), "{task} on {}: {is} {note:?}", node.name());
            Ok(())
        })?;
    }
    Ok(())
}

/// Waits until every observer is told just these addresses; then nobody is led to another one.
fn wait_for_tasks(observers: &[Task], service: &str, wanted: &[Ipv4Addr]) -> Result<()> {
    let name = format!("tasks.{service}");
    let wanted: BTreeSet<String> = wanted.iter().map(ToString::to_string).collect();
    for observer in observers {
        wait("the service's tasks by name", SOON, || {
            let told: BTreeSet<_> = observer.dig(&[&name])?.into_iter().collect();
            ensure!(told == wanted, "{}: {told:?}, wanted {wanted:?}", observer.name());
            Ok(())
        })?;
    }
    Ok(())
}

/// The names that many requests are answered with.
fn answering(from: &Path, server: SocketAddr, requests: usize) -> Result<BTreeSet<String>> {
    let one = || {
        let answer = NetNs::run_at(from, || get(server, REQUEST))??;
        Ok(answer.split(' ').next().unwrap_or_default().to_owned())
    };
    (0..requests).map(|_| one()).collect()
}

/// What the manager's events told of tasks so far: `NAME HEALTH`.
fn events(manager: &Node) -> Result<Vec<String>> {
    let mut command = manager.meshctl()?;
    command.args(["--format", "json", "events", "--since", "1h", "--filter", "type=task"]);
    let file = manager.run_folder().join("events");
    command.stdout(std::fs::File::create(&file)?);
    let mut following = command.spawn().context("meshctl events")?;
    let read = wait("events of tasks", SOON, || {
        let text = std::fs::read_to_string(&file)?;
        ensure!(text.matches("\"healthy\"").count() >= 3, "{text}");
        Ok(text)
    });
    let _ = following.kill();
    let _ = following.wait();
    let text = read?;
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let line = |line: &str| -> Result<String> {
        let event: serde_json::Value = serde_json::from_str(line)?;
        let word = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        Ok(format!("{} {}", word(&event["name"]), word(&event["attributes"]["health"])))
    };
    whole.lines().map(line).collect()
}

fn address(guest: &Guest) -> Result<Ipv4Addr> {
    let text = mesh_tests::output(guest.command("ip")?.args(["-json", "-4", "addr", "show", "dev", "eth0"]))?;
    let links: serde_json::Value = serde_json::from_str(&text).context("what ip prints")?;
    links[0]["addr_info"][0]["local"].as_str().context("an address")?.parse().context("an address")
}

/// A connection to a web server that is kept.
struct Kept(BufReader<TcpStream>);

impl Kept {
    fn open(from: &Path, server: SocketAddr) -> Result<Self> {
        let stream = NetNs::run_at(from, || TcpStream::connect_timeout(&server, REQUEST))??;
        stream.set_read_timeout(Some(REQUEST))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// The name of the task that answers.
    fn ask(&mut self) -> Result<String> {
        self.0.get_mut().write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")?;
        let mut length = 0;
        loop {
            let mut line = String::new();
            ensure!(self.0.read_line(&mut line)? > 0, "the server hung up");
            match line.trim_end().to_ascii_lowercase().split_once(": ") {
                Some(("content-length", value)) => length = value.parse()?,
                None if line.trim_end().is_empty() => break,
                _ => {}
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        let body = String::from_utf8(body)?;
        Ok(body.split(' ').next().unwrap_or_default().to_owned())
    }
}

#[test]
fn a_sick_task_gets_no_new_connections_until_it_is_well() -> Result<()> {
    run(2, |cluster| {
        network(cluster)?;
        create(cluster, "web", &["--publish", "8080:80", "--health", "http:80/ready"])?;
        cluster.wait_for_view()?;
        let observers = observers(cluster)?;
        let one = cluster[0].run_nginx(&spec("one", "web"))?;
        let two = cluster[1].run_nginx(&spec("two", "web"))?;
        let both = [one.task.address()?, two.task.address()?];
        wait_for_tasks(&observers, "web", &both)?;
        for task in ["one", "two"] {
            wait_for(cluster, "web", task, "healthy", "")?;
        }
        let vip: Ipv4Addr = observers[1].dig(&["web"])?.first().context("no VIP")?.parse()?;
        let outside = cluster.net().client().path();
        let doors: Vec<SocketAddr> =
            cluster.nodes().iter().map(|node| (node.address(), 8080).into()).collect();
        let all = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<BTreeSet<_>>();
        let mut kept = wait("a connection with one", SOON, || {
            let mut kept = Kept::open(&outside, doors[1])?;
            let name = kept.ask()?;
            ensure!(name == "one", "it is with {name}");
            Ok(kept)
        })?;
        let load = Load::start(&outside, doors.clone(), 40, REQUEST)?;

        std::fs::write(one.task.folder().join("sick"), "")?;
        wait_for(cluster, "web", "one", "unhealthy", "GET /ready: status 500")?;
        wait_for_tasks(&observers, "web", &both[1..])?;
        for &door in &doors {
            ensure!(answering(&outside, door, 40)? == all(&["two"]), "one was asked through {door}");
        }
        let inside = answering(&observers[0].namespace(), (vip, 80).into(), 40)?;
        ensure!(inside == all(&["two"]), "one was asked by a task");
        let own = answering(&cluster.net().nodes()[0].path(), ([127, 0, 0, 1], 8080).into(), 40)?;
        ensure!(own == all(&["two"]), "one was asked by its own node");
        ensure!(kept.ask()? == "one", "an open connection goes on");
        // Its own name stays.
        ensure!(observers[1].dig(&["one"])? == [both[0].to_string()]);
        let told = cluster[0].ctl_json(&["task", "inspect", "one"])?;
        let last = &told[0]["local"]["last_check"];
        ensure!(last["failure"].as_str().is_some_and(|why| why.contains("500")), "{told}");

        std::fs::remove_file(one.task.folder().join("sick"))?;
        wait_for(cluster, "web", "one", "healthy", "")?;
        wait_for_tasks(&observers, "web", &both)?;
        for &door in &doors {
            ensure!(answering(&outside, door, 60)? == all(&["one", "two"]), "through {door}");
        }
        // Managers tell it to whoever follows.
        let told = events(&cluster[0])?;
        for words in ["one healthy", "one unhealthy", "two healthy"] {
            ensure!(told.iter().any(|event| event == words), "{words}: {told:?}");
        }
        let outcome = load.end();
        println!("{} requests, {} failed", outcome.requests, outcome.failures.len());
        // What is said of its health is not what its clients got.
        outcome.none_failed()
    })
}

#[test]
fn a_server_that_stops_is_left_out_also_after_a_restart_of_the_daemon() -> Result<()> {
    run(2, |cluster| {
        network(cluster)?;
        create(cluster, "web", &["--publish", "8080:80", "--health", "tcp:80"])?;
        create(cluster, "late", &["--health", "tcp:70", "--health-start-period", "10m"])?;
        cluster.wait_for_view()?;
        let observers = observers(cluster)?;
        let mut gone = cluster[0].attach_nginx(&spec("gone", "web"))?;
        let there = cluster[0].attach_nginx(&spec("there", "web"))?;
        let both = [address(&gone)?, address(&there)?];
        wait_for_tasks(&observers, "web", &both)?;

        // A new task whose server is not there yet is nobody's.
        let late = cluster[1].attach_guest(&spec("late.1", "late"), |_| Ok(None))?;
        wait_for(cluster, "late", "late.1", "starting", "")?;
        wait_for_tasks(&observers, "late", &[])?;
        let listener = late.namespace().run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, 70)))??;
        Greeter::serve(listener, "late.1");
        wait_for(cluster, "late", "late.1", "healthy", "")?;
        wait_for_tasks(&observers, "late", &[address(&late)?])?;

        gone.kill()?;
        wait_for(cluster, "web", "gone", "unhealthy", "connection refused")?;
        wait_for_tasks(&observers, "web", &both[1..])?;
        let doors: Vec<SocketAddr> =
            cluster.nodes().iter().map(|node| (node.address(), 8080).into()).collect();
        let load = Load::start(&cluster.net().client().path(), doors, 40, REQUEST)?;
        // Killed and started again, it knows what it knew: the one stays out, the other in.
        for end in [Node::kill, Node::stop] {
            end(&cluster[0])?;
            cluster[0].start()?;
            for observer in &observers {
                for _ in 0..10 {
                    let told = observer.dig(&["tasks.web"])?;
                    ensure!(told == [both[1].to_string()], "{} is told {told:?}", observer.name());
                }
            }
            let (is, why) = health(&cluster[0], "web", "gone")?;
            ensure!(is == "unhealthy" && why.contains("connection refused"), "{is} {why:?}");
            let (is, _) = health(&cluster[0], "web", "there")?;
            ensure!(is == "healthy", "{is}");
        }
        load.end().none_failed()?;

        // Without a check it is trusted again.
        cluster[0].ctl(&["service", "update", "--health", "none", "web"])?;
        wait_for(cluster, "web", "gone", "none", "")?;
        wait_for_tasks(&observers, "web", &both)
    })
}

#[test]
fn commands_run_only_where_the_node_allows_it_and_leave_nothing() -> Result<()> {
    run(2, |cluster| {
        // Told apart from those of other runs.
        let nap = format!("10{:08}", std::process::id());
        cluster[0].stop()?;
        let config = std::fs::read_to_string(cluster[0].config())?;
        std::fs::write(cluster[0].config(), format!("health_commands = true\n{config}"))?;
        cluster[0].start()?;
        network(cluster)?;
        let file = cluster[0].run_folder().join("well");
        std::fs::write(&file, "")?;
        let file_there = format!("cmd:test -f {} || {{ echo all is lost; exit 7; }}", file.display());
        create(cluster, "web", &["--health", &file_there])?;
        create(cluster, "slow", &["--health", &format!("cmd:sleep {nap} & sleep {nap}")])?;
        create(
            cluster,
            "network",
            &["--health", "cmd:ip -o addr show to $MESH_TASK_ADDRESS | grep -q eth0"],
        )?;
        cluster.wait_for_view()?;
        let observers = observers(cluster)?;
        let sockets = || Ok::<_, anyhow::Error>(names(&format!("/proc/{}/fd", cluster[0].pid()?)).len());
        let before = sockets()?;

        let slow = cluster[0].attach_guest(&spec("slow.1", "slow"), |_| Ok(None))?;
        let here = cluster[0].attach_guest(&spec("here", "web"), |_| Ok(None))?;
        let inside = cluster[0].attach_guest(&spec("inside", "network"), |_| Ok(None))?;
        let there = cluster[1].attach_guest(&spec("there", "web"), |_| Ok(None))?;
        let both = [address(&here)?, address(&there)?];
        wait_for(cluster, "web", "here", "healthy", "")?;
        wait_for(cluster, "web", "there", "none", "health_commands")?;
        wait_for(cluster, "network", "inside", "healthy", "")?;
        wait_for(cluster, "slow", "slow.1", "unhealthy", "no answer within 2s")?;
        wait_for_tasks(&observers, "web", &both)?;

        std::fs::remove_file(&file)?;
        wait_for(cluster, "web", "here", "unhealthy", "exit status 7: all is lost")?;
        wait_for_tasks(&observers, "web", &both[1..])?;
        std::fs::write(&file, "")?;
        wait_for(cluster, "web", "here", "healthy", "")?;

        for guest in [slow, here, inside] {
            cluster[0].ctl(&["detach", guest.name()])?;
        }
        wait("nothing to be left of the checks", SOON, || {
            let left = processes(&nap);
            ensure!(left.is_empty(), "{left:?}");
            let now = sockets()?;
            ensure!(now <= before, "{now} descriptors, {before} before");
            Ok(())
        })?;
        let refusal = cluster[0].refused(&["service", "update", "--health", "none", "nothing"])?;
        ensure!(refusal.message.contains("nothing"), "{}", refusal.message);
        cluster[0].ctl(&["service", "update", "--health", "none", "web"])?;
        let refusal = cluster[0].refused(&["service", "update", "--health-retries", "5", "web"])?;
        ensure!(refusal.message.contains("no health check is set"), "{}", refusal.message);
        Ok(())
    })
}

fn names(folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Processes that have `word` among their arguments.
fn processes(word: &str) -> Vec<String> {
    let lines = names("/proc").into_iter().filter(|name| name.parse::<u32>().is_ok()).map(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).replace('\0', " ")
    });
    lines.filter(|line| line.contains(word)).collect()
}
