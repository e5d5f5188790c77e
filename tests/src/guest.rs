//! Guests: namespaces that somebody else made, with a server that listens before they are attached, as container
//! runtimes have it.

use std::{
    io::{BufRead, BufReader, Write},
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{
    netns::NetNs,
    node::Node,
    process::{Process, lines_of},
    task::{TaskSpec, nginx_config},
    wait::wait,
};

const START: Duration = Duration::from_secs(20);

/// A namespace that is attached as a task. Ended on drop: its server, then the namespace, which meshd notices.
#[derive(Debug)]
pub struct Guest {
    server: Option<Process>,
    namespace: NetNs,
    name: String,
}

impl Node {
    /// Makes a namespace and attaches it, when `serve` has begun to serve inside.
    pub fn attach_guest(
        &self,
        spec: &TaskSpec<'_>,
        serve: impl FnOnce(&NetNs) -> Result<Option<Process>>,
    ) -> Result<Guest> {
        let namespace = NetNs::create(&self.namespace_of(spec.name))?;
        let server = serve(&namespace)?;
        let guest = Guest { server, namespace, name: spec.name.to_owned() };
        let path = guest.namespace.path();
        let path = path.to_str().context("the namespace's path")?;
        let mut words = vec!["attach", "--name", spec.name, "--network", spec.network];
        if let Some(service) = spec.service {
            words.extend(["--service", service]);
        }
        words.extend(spec.options);
        words.push(path);
        self.ctl(&words)?;
        Ok(guest)
    }

    /// A guest whose nginx answers with its name and the client's address.
    pub fn attach_nginx(&self, spec: &TaskSpec<'_>) -> Result<Guest> {
        let folder = self.folder().join("tasks").join(spec.name);
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let config = folder.join("nginx.conf");
        std::fs::write(&config, nginx_config(&folder, spec.name))
            .with_context(|| format!("cannot write {}", config.display()))?;
        self.attach_guest(spec, |namespace| {
            let mut command = namespace.command("nginx")?;
            command.arg("-p").arg(&folder).arg("-c").arg(&config);
            let server = Process::start(command, self.lifetime(), &folder.join("log"), &self.records())?;
            let connect = || {
                let connect = || TcpStream::connect((std::net::Ipv4Addr::LOCALHOST, 80)).map(drop);
                namespace.run(connect)?.context("nginx does not listen")
            };
            wait("nginx to listen", START, connect)
                .with_context(|| lines_of(&folder.join("error.log"), 10))?;
            Ok(Some(server))
        })
    }

    /// A guest that greets on TCP `port` and echoes, see [`Greeter`].
    pub fn attach_greeter(&self, spec: &TaskSpec<'_>, port: u16) -> Result<Guest> {
        self.attach_guest(spec, |namespace| {
            let listener = namespace.run(move || TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)))?;
            Greeter::serve(listener.with_context(|| format!("port {port}"))?, spec.name);
            Ok(None)
        })
    }
}

impl Guest {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its namespace.
    pub fn namespace(&self) -> &NetNs {
        &self.namespace
    }

    /// The file that stands for its namespace.
    pub fn path(&self) -> PathBuf {
        self.namespace.path()
    }

    /// A command that runs `program` in its namespace.
    pub fn command(&self, program: &str) -> Result<Command> {
        self.namespace.command(program)
    }

    /// Kills its server with SIGKILL.
    pub fn kill(&mut self) -> Result<()> {
        self.server.as_mut().context("a guest without a server")?.kill().map(drop)
    }
}

/// A TCP server that says its name and whom it sees, and then sends every line back.
#[derive(Debug)]
pub struct Greeter;

impl Greeter {
    /// Serves until this process ends.
    pub fn serve(listener: TcpListener, name: &str) {
        let name = name.to_owned();
        std::thread::spawn(move || {
            while let Ok((stream, from)) = listener.accept() {
                let greeting = format!("{name} {}\n", from.ip().to_canonical());
                std::thread::spawn(move || echo(stream, &greeting));
            }
        });
    }
}

fn echo(mut stream: TcpStream, greeting: &str) -> std::io::Result<()> {
    stream.write_all(greeting.as_bytes())?;
    for line in BufReader::new(stream.try_clone()?).lines() {
        stream.write_all(format!("{}\n", line?).as_bytes())?;
    }
    Ok(())
}

/// A connection with a [`Greeter`].
#[derive(Debug)]
pub struct Talk {
    stream: BufReader<TcpStream>,
    /// The name of the task at the other end.
    pub name: String,
    /// Whom it sees.
    pub client: IpAddr,
}

impl Talk {
    /// Connects from the calling thread's namespace and is greeted.
    pub fn open(server: SocketAddr, at_most: Duration) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&server, at_most)
            .with_context(|| format!("connecting to {server}"))?;
        stream.set_read_timeout(Some(at_most)).context("a socket's timeout")?;
        let mut stream = BufReader::new(stream);
        let greeting = line(&mut stream).with_context(|| format!("greeted by {server}"))?;
        let (name, client) =
            greeting.split_once(' ').with_context(|| format!("greeted with {greeting:?}"))?;
        let (name, client) = (name.to_owned(), client.parse().context("an address")?);
        Ok(Self { stream, name, client })
    }

    /// Says a line and hears it back.
    pub fn say(&mut self, text: &str) -> std::io::Result<()> {
        self.stream.get_mut().write_all(format!("{text}\n").as_bytes())?;
        match line(&mut self.stream)? {
            heard if heard == text => Ok(()),
            heard => Err(std::io::Error::other(format!("said {text:?}, heard {heard:?}"))),
        }
    }
}

fn line(stream: &mut BufReader<TcpStream>) -> std::io::Result<String> {
    let mut text = String::new();
    match stream.read_line(&mut text)? {
        0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(text.trim_end().to_owned()),
    }
}
