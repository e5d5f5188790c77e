//! `meshctl top`.

mod rates;
mod screen;

use std::{
    io::{Read, Write},
    time::Duration,
};

use anyhow::{Context as _, Result};
use mesh_api::v1::{GetSnapshotRequest, NodeSnapshot};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use terminal_size::terminal_size_of;
use tokio::{sync::mpsc, time::sleep};

use self::{
    rates::{Report, Sort},
    screen::{View, change, lines, table},
};
use crate::{
    context::Context,
    daemon::{Daemon, answer},
    output::{self, Page},
};

/// Where a terminal does not tell its size.
const SIZE: (usize, usize) = (80, 24);

/// Watch what services, tasks and networks of this node carry
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshctl top
  meshctl top --sort flows --interval 5
  meshctl top > now.txt                        one look at all, where stdout is no terminal
  meshctl --format json top --interval 10

Keys: q quits, s sorts by the next column, tab shows the next list: services, tasks, networks, reasons of drops.
IN is towards tasks, and from clients to services. Traffic of services is counted at the node that its clients speak to,
traffic of tasks at their own node; established flows are those to services.")]
pub struct Args {
    /// Seconds between two looks
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=3600))]
    interval: u32,
    /// Order
    #[arg(long, value_enum, default_value_t)]
    sort: Sort,
}

/// Looks until q or Ctrl-C; once, where nobody watches.
pub async fn run(args: &Args, context: &Context) -> Result<()> {
    let daemon = context.daemon().await?;
    let interval = Duration::from_secs(args.interval.into());
    if context.is_for_programs() || !output::is_terminal() {
        let before = look(&daemon).await?;
        sleep(interval).await;
        let report = Report::new(&before, &look(&daemon).await?, args.sort);
        return context.show(&report, page);
    }
    let mut keys = keys();
    let _screen = Screen::begin()?;
    let (mut view, mut sort, mut shown) = (View::default(), args.sort, Vec::new());
    let mut before = look(&daemon).await?;
    let mut now = before.clone();
    let mut size = (0, 0);
    loop {
        let fits = terminal_size_of(std::io::stdout());
        let fits = fits.map_or(SIZE, |(columns, rows)| (usize::from(columns.0), usize::from(rows.0)));
        if fits != size {
            // A terminal of another size shows whatever it made of the lines.
            (size, shown) = (fits, Vec::new());
            write("\x1b[2J")?;
        }
        let next = lines(&Report::new(&before, &now, sort), view, sort, size);
        write(&change(&shown, &next))?;
        shown = next;
        tokio::select! {
            key = keys.recv() => match key {
                Some(b'q' | b'Q' | 3) => return Ok(()),
                Some(b's' | b'S') => sort = sort.next(),
                Some(b'\t') => view = view.next(),
                Some(_) => {}
                // Nobody can quit by a key any more.
                None => sleep(interval).await,
            },
            _ = tokio::signal::ctrl_c() => return Ok(()),
            () = sleep(interval) => {
                before = std::mem::replace(&mut now, look(&daemon).await?);
            }
        }
    }
}

async fn look(daemon: &Daemon) -> Result<NodeSnapshot> {
    answer(daemon.local().get_snapshot(GetSnapshotRequest::default()))
        .await
        .context("cannot look at the node")
}

fn page(report: &Report) -> String {
    let mut page = Page::new();
    let members: Vec<String> = report.members.iter().map(|(state, n)| format!("{n} {state}")).collect();
    page.field("Node", &report.node).field("Nodes", members.join(", "));
    if let Some(fault) = &report.fault {
        page.field("Fault", fault);
    }
    for (heading, view) in [
        ("Services", View::Services),
        ("Tasks", View::Tasks),
        ("Networks", View::Networks),
        ("Drops", View::Drops),
    ] {
        page.section(heading, table(report, view));
    }
    page.render()
}

/// The keys that are pressed.
fn keys() -> mpsc::Receiver<u8> {
    let (pressed, keys) = mpsc::channel(16);
    // It waits for ever; the process ends without it.
    std::thread::spawn(move || {
        for key in std::io::stdin().lock().bytes() {
            if key.is_err() || pressed.blocking_send(key.unwrap_or_default()).is_err() {
                return;
            }
        }
    });
    keys
}

fn write(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("cannot write to the terminal")
}

/// The terminal's other screen, without a cursor, with keys told at once; on drop it is as before.
struct Screen {
    before: Option<Termios>,
}

impl Screen {
    fn begin() -> Result<Self> {
        // Keys may come from elsewhere than a terminal; then there are none.
        let before = tcgetattr(std::io::stdin()).ok();
        if let Some(before) = &before {
            let mut raw = before.clone();
            raw.local_flags.remove(LocalFlags::ICANON | LocalFlags::ECHO);
            tcsetattr(std::io::stdin(), SetArg::TCSANOW, &raw).context("cannot have keys told at once")?;
        }
        let screen = Self { before };
        write("\x1b[?1049h\x1b[?25l")?;
        Ok(screen)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Whatever fails here, there is nobody to tell.
        let _ = write("\x1b[?25h\x1b[?1049l");
        if let Some(before) = &self.before {
            let _ = tcsetattr(std::io::stdin(), SetArg::TCSANOW, before);
        }
    }
}
