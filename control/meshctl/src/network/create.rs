//! `meshctl network create`.

use std::net::IpAddr;

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use ipnet::IpNet;
use mesh_api::v1::{self, CreateNetworkRequest};
use mesh_types::{Name, Network, Subnet};

use crate::{context::Context, daemon::answer, failure::Failure, label, report::NetworkReport, wait::Wait};

/// Make a network that tasks on all nodes can share
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshctl network create --driver overlay --subnet 10.10.3.0/24 prod
  meshctl network create --subnet 10.10.4.0/24 --gateway 10.10.4.254 --attachable test
  meshctl network create --ipv6 web                            both families, out of the pools
  meshctl network create --subnet 10.10.5.0/24 --subnet fd00:5::/64 both
  meshctl network create --subnet fd00:6::/64 six              IPv6 alone
  meshctl network create --internal --opt mtu=1400 db
  meshctl network create --subnet 10.20.0.0/16 --aux-address router=10.20.0.2 lab
  meshctl network create --ingress --subnet 10.11.0.0/16 ingress   in place of the ingress network")]
pub struct Args {
    /// Driver
    #[arg(long, short, value_enum, default_value_t)]
    driver: Driver,
    /// Subnet, such as 10.10.3.0/24; may be repeated, one per family [default: the next free one of the pool]
    #[arg(long, value_parser = subnet)]
    subnet: Vec<IpNet>,
    /// Gateway of the subnet of its family; may be repeated [default: the first address]
    #[arg(long, value_name = "ADDRESS")]
    gateway: Vec<IpAddr>,
    /// Part of the subnet of its family that addresses are given out of; may be repeated [default: all of it]
    #[arg(long, value_name = "RANGE")]
    ip_range: Vec<IpNet>,
    /// Address of a subnet that is never given out; may be repeated
    #[arg(long, value_name = "NAME=ADDRESS", value_parser = aux_address)]
    aux_address: Vec<(String, IpAddr)>,
    /// An IPv6 subnet beside the IPv4 one: the next free /64 of the pool, unless one is given
    #[arg(long)]
    ipv6: bool,
    /// Let tasks of no service join
    #[arg(long)]
    attachable: bool,
    /// Without a way out
    #[arg(long)]
    internal: bool,
    /// Take the place of the ingress network, which carries published ports and which nothing may use then
    #[arg(long)]
    ingress: bool,
    /// Label; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = label::parse)]
    label: Vec<(String, String)>,
    /// Option of the driver: mtu=BYTES
    #[arg(long, short, value_name = "KEY=VALUE", value_parser = opt)]
    opt: Vec<u16>,
    #[command(flatten)]
    wait: Wait,
    /// Name of the network
    name: Name,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Driver {
    #[default]
    Overlay,
}

fn subnet(text: &str) -> Result<IpNet, String> {
    let net: IpNet = text.parse().map_err(|_| format!("{text:?} is not a subnet such as 10.10.3.0/24"))?;
    Subnet::new(net, None).map(|subnet| subnet.net()).map_err(|error| error.to_string())
}

fn aux_address(text: &str) -> Result<(String, IpAddr), String> {
    let given = text.split_once('=').filter(|(name, _)| !name.is_empty());
    let given = given.and_then(|(name, address)| Some((name.to_owned(), address.parse().ok()?)));
    given.ok_or_else(|| format!("{text:?} is not NAME=ADDRESS, for example router=10.10.3.9"))
}

fn opt(text: &str) -> Result<u16, String> {
    if text == "encrypted" || text.starts_with("encrypted=") {
        return Err("overlays are not encrypted by meshd; run them over an encrypted underlay, for example \
                    WireGuard, with --data-path-addr on its interface"
            .to_owned());
    }
    let Some(bytes) = text.strip_prefix("mtu=") else {
        return Err(format!("{text:?} is not an option of the driver; there is mtu=BYTES"));
    };
    bytes.parse().map_err(|_| format!("{bytes:?} is not a number of bytes up to 65535"))
}

/// Asks a manager, by way of the daemon, and prints the network's id.
pub async fn run(args: Args, context: &Context) -> Result<()> {
    let Driver::Overlay = args.driver;
    let subnets = subnets(&args.subnet, &args.gateway)?;
    let request = CreateNetworkRequest {
        name: args.name.to_string(),
        subnets: subnets.iter().map(v1::Subnet::from).collect(),
        attachable: args.attachable,
        internal: args.internal,
        mtu: args.opt.last().copied().unwrap_or_default().into(),
        labels: args.label.into_iter().collect(),
        ip_ranges: args.ip_range.iter().map(ToString::to_string).collect(),
        ipv6: args.ipv6,
        aux_addresses: args.aux_address.into_iter().map(|(name, a)| (name, a.to_string())).collect(),
        ingress: args.ingress,
    };
    let daemon = context.daemon().await?;
    let network = answer(daemon.control().create_network(request))
        .await
        .with_context(|| format!("cannot create network {}", args.name))?;
    let network = Network::try_from(network).context("the daemon's answer makes no sense")?;
    context.show(&NetworkReport::new(&network), |network| network.id.clone())?;
    args.wait.finish(&daemon, network.version).await
}

/// Gives each gateway to the subnet that holds it.
fn subnets(nets: &[IpNet], gateways: &[IpAddr]) -> Result<Vec<Subnet>, Failure> {
    let usage = |text: String| Failure::Usage(text);
    for gateway in gateways {
        if !nets.iter().any(|net| net.contains(gateway)) {
            return Err(usage(format!("gateway {gateway} is in none of the subnets given with --subnet")));
        }
    }
    let with_gateway = |net: &IpNet| {
        let mut own = gateways.iter().filter(|gateway| net.contains(*gateway));
        let gateway = own.next().copied();
        if let Some(second) = own.next() {
            return Err(usage(format!("subnet {net} has a gateway already, {second} is one too many")));
        }
        Subnet::new(*net, gateway).map_err(|error| usage(error.to_string()))
    };
    nets.iter().map(with_gateway).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateways_find_their_subnets() {
        let nets = ["10.10.3.0/24", "fd00:3::/64"].map(|net| subnet(net).unwrap());
        let made = subnets(&nets, &["fd00:3::9".parse().unwrap()]).unwrap();
        assert_eq!(made[0].gateway(), "10.10.3.1".parse::<IpAddr>().unwrap());
        assert_eq!(made[1].gateway(), "fd00:3::9".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn gateways_that_fit_nowhere_are_named() {
        let nets = [subnet("10.10.3.0/24").unwrap()];
        let refused = |gateways: &[&str]| {
            let gateways: Vec<IpAddr> = gateways.iter().map(|g| g.parse().unwrap()).collect();
            subnets(&nets, &gateways).unwrap_err().to_string()
        };
        assert!(refused(&["10.10.4.1"]).contains("10.10.4.1"));
        assert!(refused(&["10.10.3.255"]).contains("10.10.3.255"));
        assert!(refused(&["10.10.3.1", "10.10.3.2"]).contains("10.10.3.2"));
    }

    #[test]
    fn malformed_subnets_say_what_was_meant() {
        assert!(subnet("10.10.3.7/24").unwrap_err().contains("10.10.3.0/24"));
        assert!(subnet("10.10.3/24").unwrap_err().contains("10.10.3/24"));
    }
}
