//! `meshctl capture`.

mod out;
mod pcapng;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use mesh_api::v1::{CaptureRequest, WatchEvent, WatchRequest};
use tokio::time::{Instant, sleep, sleep_until};

use self::{
    out::Out,
    pcapng::{Blocks, Packet},
};
use crate::{
    context::Context,
    daemon::{answer, failed},
    flows::FlowReport,
    name::reference,
    output::is_terminal,
};

/// In place of an end.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// How long what was captured may take to be written after Ctrl-C.
const PATIENCE: Duration = Duration::from_secs(2);
const UNREAD: &str = "not all packets are written: whoever reads them stands still";

/// Write the packets of a task, or of a service's tasks on this node, to a file that Wireshark opens
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshctl capture web.1 -w web.pcapng
  meshctl capture web -w - --count 100 | tshark -r -
  meshctl capture web.1 -w dns.pcapng --port 53 --protocol udp --duration 60

Packets are as tasks and networks know them, without the headers that carry them between nodes. Each place on the way is an
interface of the file: from-task (as the task sent it), to-node (as it leaves for another node), from-node (as it came from one),
to-task (as the task gets it); so a packet that is translated is there before and after. The comment of a packet names the
flow. Capture on the node that the task is on. It costs a little for each packet of the node while it goes on.")]
pub struct Args {
    /// Task, or service
    #[arg(value_name = "TASK|SERVICE", value_parser = reference)]
    of: String,
    /// File; - for standard output
    #[arg(short, long, value_name = "FILE")]
    write: PathBuf,
    /// End after so many packets
    #[arg(short, long, value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    duration: Option<u32>,
    /// Bytes of each packet
    #[arg(short, long, value_name = "BYTES", default_value_t = 2048, value_parser = clap::value_parser!(u32).range(64..=2048))]
    snaplen: u32,
    /// Only packets from or to this port
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Only packets of this transport
    #[arg(long, value_name = "PROTOCOL", value_parser = ["tcp", "udp", "sctp", "icmp", "icmpv6"])]
    protocol: Option<String>,
}

/// Writes until the count, the time, Ctrl-C, or an error.
pub async fn run(args: Args, context: &Context) -> Result<()> {
    let to_stdout = args.write == Path::new("-");
    ensure!(
        !(to_stdout && is_terminal()),
        "packets are no text for a terminal; write them to a file, or into a pipe"
    );
    let daemon = context.daemon().await?;
    let mut interrupts = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())
        .context("cannot wait for Ctrl-C")?;
    let capture = CaptureRequest {
        of: args.of.clone(),
        port: args.port.unwrap_or_default().into(),
        protocol: args.protocol.unwrap_or_default(),
        snaplen: args.snaplen,
    };
    let request = WatchRequest { capture: Some(capture), ..WatchRequest::default() };
    let what = || format!("cannot capture packets of {}", args.of);
    let mut events = answer(daemon.local().watch(request)).await.with_context(what)?;
    let mut blocks = Blocks::new(args.snaplen);
    let out = Out::start(&args.write, blocks.head())?;
    let end = Instant::now() + args.duration.map_or(FOREVER, |seconds| Duration::from_secs(seconds.into()));
    let (mut handed, mut lost) = (0, 0);
    let (mut ended, mut interrupted) = (Ok(()), false);
    while args.count.is_none_or(|count| handed < count) {
        let event = tokio::select! {
            event = events.message() => event,
            _ = interrupts.recv() => {
                interrupted = true;
                break;
            }
            () = sleep_until(end) => break,
            () = out.closed() => break,
        };
        match event {
            Ok(Some(event)) if event.kind == "packet" => tokio::select! {
                () = out.write(block(&mut blocks, event)) => handed += 1,
                _ = interrupts.recv() => {
                    interrupted = true;
                    break;
                }
            },
            Ok(Some(event)) if event.kind == "begun" => {
                anstream::eprintln!("meshctl: capturing; Ctrl-C ends it")
            }
            Ok(Some(event)) => lost += event.lost,
            Ok(None) => break,
            Err(status) => {
                ended = Err(anyhow::Error::from(failed(&status)).context("the capture ends"));
                break;
            }
        }
    }
    let written = tokio::select! {
        written = out.finish() => written,
        _ = interrupts.recv() => bail!(UNREAD),
        () = sleep(PATIENCE), if interrupted => bail!(UNREAD),
    };
    let missing =
        if lost > 0 { format!(", {lost} more were not told: too many at a time") } else { String::new() };
    anstream::eprintln!("meshctl: {} packets{missing}", written.packets);
    written.ended.and(ended)
}

fn block(blocks: &mut Blocks, event: WatchEvent) -> Vec<u8> {
    let WatchEvent { unix_nanos, place, here, length, packet, flow, program, .. } = event;
    let place = if here.is_empty() { place } else { format!("{place} {here}") };
    let flow = flow.map(FlowReport::from);
    let mut comment = flow.map(|flow| format!("{} -> {}", flow.opener(), flow.to_what())).unwrap_or_default();
    if !program.is_empty() {
        comment = format!("{comment}, seen by {program}");
    }
    blocks.packet(&Packet { unix_nanos, place: &place, comment: &comment, length, bytes: &packet })
}
