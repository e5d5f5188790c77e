//! `meshctl unpublish`.

use std::str::FromStr;

use anyhow::{Context as _, Result};
use mesh_api::v1::{self, UnpublishRequest};
use mesh_types::{PortError, Protocol};

use crate::{
    context::Context,
    daemon::answer,
    name::reference,
    report::{Cluster, ServiceReport},
};

/// Close a published port on every node
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshctl unpublish 80
  meshctl unpublish 8053/udp dns")]
pub struct Args {
    /// Published port
    #[arg(value_name = "PUBLISHED[/tcp|/udp]")]
    port: Published,
    /// Service that has to be the port's [default: whichever publishes it]
    #[arg(value_parser = reference)]
    service: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Published {
    number: u16,
    protocol: Protocol,
}

impl FromStr for Published {
    type Err = PortError;

    fn from_str(text: &str) -> Result<Self, PortError> {
        let (number, protocol) = match text.split_once('/') {
            Some((number, protocol)) => (number, protocol.parse()?),
            None => (text, Protocol::Tcp),
        };
        match number.parse() {
            Ok(number) if number > 0 => Ok(Self { number, protocol }),
            _ => Err(PortError::Number(number.to_owned())),
        }
    }
}

/// Asks a manager, by way of the daemon.
pub async fn run(args: Args, context: &Context) -> Result<()> {
    let Published { number, protocol } = args.port;
    let daemon = context.daemon().await?;
    let request = UnpublishRequest {
        service: args.service.unwrap_or_default(),
        published: number.into(),
        protocol: v1::Protocol::from(protocol).into(),
    };
    let answered = answer(daemon.control().unpublish(request)).await;
    let service = answered.with_context(|| format!("cannot unpublish {number}/{protocol}"))?;
    let names = Cluster::fetch(&daemon).await.ok();
    let report = ServiceReport::of_answer(names.as_ref(), service)?;
    context.show(&report, |report| format!("{number}/{protocol} of {} is closed", report.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let port = |number, protocol| Ok(Published { number, protocol });
        assert_eq!("80".parse(), port(80, Protocol::Tcp));
        assert_eq!("80/udp".parse(), port(80, Protocol::Udp));
        for bad in ["", "0", "80:80", "80/x", "65536", "/udp"] {
            assert!(bad.parse::<Published>().is_err(), "{bad}");
        }
    }
}
