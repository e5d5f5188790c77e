//! The process in the task's namespace: serves, and tries what it is told. It ends with its standard input, and in time.

use std::{
    io::{self, BufRead, Read, Write},
    net::{Ipv6Addr, TcpListener, TcpStream, UdpSocket},
    process::ExitCode,
    thread,
    time::Duration,
};

use nix::sched::{CloneFlags, unshare};

use super::probe::{self, GREETING, PORT, Probes};

/// How the process is told that it is one.
pub const ARGUMENT: &str = "connectivity-helper";
/// The longest life, whatever is asked for, in seconds.
const LONGEST: u64 = 600;
/// How long a connection may be silent.
const SILENCE: Duration = Duration::from_secs(10);
/// Connections served at a time are bounded by the time each may be silent.
const LARGEST: usize = 64 << 10;

/// Whether this process is a helper, and how it ended.
pub fn of_process() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next()? != ARGUMENT {
        return None;
    }
    let secs = arguments.nth(1)?.to_str()?.parse::<u64>().ok()?.min(LONGEST);
    Some(match run(Duration::from_secs(secs)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    })
}

fn run(time: Duration) -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    // Serves both families, whatever addresses come.
    let tcp =
        TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT)).or_else(|_| TcpListener::bind(("0.0.0.0", PORT)))?;
    let udp =
        UdpSocket::bind((Ipv6Addr::UNSPECIFIED, PORT)).or_else(|_| UdpSocket::bind(("0.0.0.0", PORT)))?;
    thread::spawn(move || serve_tcp(&tcp));
    thread::spawn(move || serve_udp(&udp));
    thread::spawn(move || {
        thread::sleep(time);
        std::process::exit(1);
    });
    let mut out = io::stdout().lock();
    out.write_all(b".")?;
    out.flush()?;
    for line in io::stdin().lock().lines() {
        let probes: Probes = serde_json::from_str(&line?)?;
        serde_json::to_writer(&mut out, &probe::run(&probes))?;
        out.write_all(b"\n")?;
        out.flush()?;
    }
    Ok(())
}

fn serve_tcp(listener: &TcpListener) {
    for stream in listener.incoming() {
        match stream {
            Ok(stream) => drop(thread::spawn(move || echo(stream))),
            Err(_) => thread::sleep(Duration::from_millis(50)),
        }
    }
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_write_timeout(Some(SILENCE))?;
    stream.write_all(GREETING)?;
    let mut buffer = vec![0; LARGEST];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            len => stream.write_all(&buffer[..len])?,
        }
    }
}

fn serve_udp(socket: &UdpSocket) {
    let mut buffer = vec![0; LARGEST];
    loop {
        match socket.recv_from(&mut buffer) {
            Ok((len, from)) => drop(socket.send_to(&buffer[..len], from)),
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
    }
}
