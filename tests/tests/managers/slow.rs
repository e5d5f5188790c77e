//! Peers that connect and say nothing, thousands of them: a manager's port and a daemon's socket serve the others meanwhile, and
//! need no more memory or files for them than was foreseen.

use std::{io::Read as _, net::TcpStream, os::unix::net::UnixStream, sync::atomic::AtomicUsize};

use super::*;

/// Connections that are tried, far more than are let in.
const CONNECTIONS: usize = 3_000;
/// What a daemon may grow by, in KiB: TLS handshakes that are under way, and what the allocator keeps.
const GROWTH: u64 = 48 << 10;

/// A figure of the daemon's, in KiB.
fn resident(node: &Node) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{}/status", node.pid()?)).context("the daemon's status")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    line.trim().trim_end_matches(" kB").parse().context("VmRSS")
}

fn files(node: &Node) -> Result<usize> {
    Ok(fs::read_dir(format!("/proc/{}/fd", node.pid()?)).context("the daemon's files")?.count())
}

/// What connects may have a thousand files open unless it says otherwise. Daemons that run already keep their own limit.
fn many_files() -> Result<()> {
    succeed(Command::new("prlimit").args(["--nofile=16384:16384", "--pid", &std::process::id().to_string()]))
}

/// Connects again and again until told to end, and keeps the newest `CONNECTIONS`; counts those that were made.
fn besiege<C>(connect: impl Fn() -> std::io::Result<C>, made: &AtomicUsize, end: &AtomicBool) {
    let mut kept = std::collections::VecDeque::new();
    while !end.load(Ordering::Relaxed) {
        match connect() {
            Ok(connection) => {
                made.fetch_add(1, Ordering::Relaxed);
                kept.push_back(connection);
                if kept.len() > CONNECTIONS {
                    kept.pop_front();
                }
            }
            // The backlog is full.
            Err(_) => thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// While `CONNECTIONS` and more are made, `served` holds and the daemon stays small.
fn under_siege<C>(
    node: &Node,
    connect: impl Fn() -> std::io::Result<C> + Sync,
    mut served: impl FnMut() -> Result<()>,
) -> Result<()> {
    let (memory, before) = (resident(node)?, files(node)?);
    let (made, end) = (AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let sieging = scope.spawn(|| besiege(&connect, &made, &end));
        let held = wait("so many connections", SOON, || {
            ensure!(made.load(Ordering::Relaxed) >= CONNECTIONS, "{}", made.load(Ordering::Relaxed));
            Ok(())
        });
        let held = held.and_then(|()| served());
        let figures = (resident(node), files(node));
        end.store(true, Ordering::Relaxed);
        sieging.join().map_err(|_| anyhow!("the one that connects panicked"))?;
        held?;
        let (grown, open) = (figures.0?.saturating_sub(memory), figures.1?);
        println!(
            "{} connections: {grown} KiB more, {open} files instead of {before}",
            made.load(Ordering::Relaxed)
        );
        ensure!(grown < GROWTH, "{grown} KiB more than before");
        ensure!(open < before + 400, "{open} files instead of {before}");
        Ok(())
    })
}

#[test]
fn half_open_connections_to_a_manager_keep_nobody_out() -> Result<()> {
    told(start(3, 2)?, |cluster| {
        many_files()?;
        let to = SocketAddr::from((cluster[0].address(), 2377));
        let client = cluster.net().client().path();
        let connect = || {
            NetNs::run_at(&client, || TcpStream::connect_timeout(&to, Duration::from_secs(1)))
                .map_err(std::io::Error::other)?
        };
        let mut number = 0;
        under_siege(&cluster[0], connect, || {
            // The other manager by it, or it by the other one; a worker that comes and goes, and its session.
            for node in &cluster.nodes()[..2] {
                create_by_any(&[node], "besieged", &mut number)?;
            }
            cluster[2].ctl(&["leave"])?;
            wait("it to join", SOON, || cluster.join(2))?;
            cluster.wait_for_view()
        })?;
        // Whoever was there and silent is gone.
        let mut one = NetNs::run_at(&client, || TcpStream::connect(to))??;
        one.set_read_timeout(Some(SOON))?;
        ensure!(matches!(one.read(&mut [0; 1]), Ok(0)), "a silent connection stays");
        Ok(())
    })
}

#[test]
fn half_open_connections_to_the_socket_keep_nobody_out() -> Result<()> {
    run(1, |cluster| {
        many_files()?;
        let path = cluster[0].socket();
        let mut number = 0;
        under_siege(
            &cluster[0],
            || UnixStream::connect(&path),
            || {
                create_by_any(&[&cluster[0]], "besieged", &mut number)?;
                cluster[0].ctl(&["status"]).map(drop)
            },
        )
    })
}
