//! `meshctl dashboard`.

use anyhow::{Context as _, Result};
use mesh_api::v1::{OpenDashboardRequest, OpenDashboardResponse};
use serde::Serialize;

use crate::{context::Context, daemon::answer};

/// Serve the managers' page on this node, and print where it is and a login
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshctl dashboard                           a login that may only look
  meshctl dashboard --write                   one that may publish ports, drain and set weights
  meshctl dashboard --listen 10.0.0.5:7380    also for browsers on other machines
  ssh -L 7380:127.0.0.1:7380 manager1         then open the printed address here

The login works once. The browser warns, because the cluster's own CA has signed the certificate: compare its
SHA-256 fingerprint with the printed one before going on. The page is served until meshd stops,
the node leaves the cluster or is demoted.")]
pub struct Args {
    /// The session may change things
    #[arg(long)]
    write: bool,
    /// Where to serve it [default: 127.0.0.1:7380; once it is served, there]. Sessions elsewhere end
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
}

#[derive(Serialize)]
struct Report {
    address: String,
    url: String,
    fingerprint: String,
    write: bool,
    login_secs: u32,
    idle_secs: u32,
}

/// Asks this node's daemon, whose manager serves it.
pub async fn run(args: Args, context: &Context) -> Result<()> {
    let daemon = context.daemon().await?;
    let Args { write, listen } = args;
    let request = OpenDashboardRequest { write, listen: listen.unwrap_or_default() };
    let opened =
        answer(daemon.local().open_dashboard(request)).await.context("cannot serve the dashboard")?;
    let OpenDashboardResponse { address, url, fingerprint, login_secs, idle_secs } = opened;
    context.show(&Report { address, url, fingerprint, write, login_secs, idle_secs }, page)
}

fn page(report: &Report) -> String {
    let Report { address, url, fingerprint, write, login_secs, idle_secs } = report;
    let may = if *write { "may change things" } else { "may only look" };
    format!(
        "The dashboard is served on {address}. Open, once and within {login_secs} s:\n\n    {url}\n\n\
         The browser warns of the certificate; its SHA-256 fingerprint has to be\n\n    {fingerprint}\n\n\
         The session {may}, and ends after {} minutes without anybody doing anything.\n",
        idle_secs / 60
    )
}
