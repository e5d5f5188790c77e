//! Networks whose subnets the host has a route to: tasks on them do not reach what is there.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use mesh_types::ClusterView;

use super::{Finding, Told};

const NAME: &str = "subnets";

/// A route of the host.
#[derive(Debug, PartialEq, Eq)]
struct Route {
    interface: String,
    to: IpNet,
}

/// Compares the networks' subnets with the host's routes.
pub fn check(told: &Told, findings: &mut Vec<Finding>) {
    let Some(view) = &told.view else { return };
    let mut routes = read();
    routes.retain(matters);
    let before = findings.len();
    findings.extend(conflicts(view, &routes));
    if findings.len() == before {
        findings.push(Finding::ok(NAME, "no network has addresses that the host has routes to"));
    }
}

/// Where the host has routes to.
pub fn networks() -> Vec<IpNet> {
    read().into_iter().map(|route| route.to).collect()
}

fn read() -> Vec<Route> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let mut routes: Vec<_> = read("/proc/self/net/route").lines().filter_map(route4).collect();
    routes.extend(read("/proc/self/net/ipv6_route").lines().filter_map(route6));
    routes
}

fn conflicts(view: &ClusterView, routes: &[Route]) -> Vec<Finding> {
    let mut found = Vec::new();
    for network in view.networks.values() {
        for subnet in network.subnets.iter().map(|subnet| subnet.net()) {
            let overlaps = |route: &&Route| subnet.contains(&route.to) || route.to.contains(&subnet);
            let Some(route) = routes.iter().find(overlaps) else { continue };
            found.push(Finding::warning(
                NAME,
                format!(
                    "network {} has {subnet}, and the host a route to {} by {}: its tasks do not reach what is there",
                    network.name, route.to, route.interface
                ),
                match network.ingress {
                    true => "give the cluster another pool at `meshctl init --default-addr-pool`, or another ingress network: `meshctl network create --ingress --subnet NET NAME`".to_owned(),
                    false => format!("make the network anew with another --subnet, or take the route away: `ip route del {} dev {}`", route.to, route.interface),
                },
            ));
        }
    }
    found
}

/// Not the default route, nor the mesh's own, nor those of every link.
fn matters(route: &Route) -> bool {
    let own = ["lo", "mesh-", "msh"].iter().any(|name| route.interface.starts_with(name));
    let everywhere = match route.to {
        IpNet::V4(net) => net.addr().is_multicast() || net.addr().is_link_local(),
        IpNet::V6(net) => net.addr().is_multicast() || net.addr().is_unicast_link_local(),
    };
    route.to.prefix_len() > 0 && !own && !everywhere
}

/// A line of `/proc/net/route`: numbers in hexadecimal, as they are in memory.
fn route4(line: &str) -> Option<Route> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let number = |word: &&str| Some(u32::from_str_radix(word, 16).ok()?.to_ne_bytes());
    let (to, mask) = (number(words.get(1)?)?, number(words.get(7)?)?);
    let prefix = u32::from_be_bytes(mask).leading_ones();
    let to = IpNet::new(IpAddr::V4(Ipv4Addr::from(to)), prefix.try_into().ok()?).ok()?;
    Some(Route { interface: (*words.first()?).to_owned(), to })
}

/// A line of `/proc/net/ipv6_route`.
fn route6(line: &str) -> Option<Route> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let to = u128::from_str_radix(words.first()?, 16).ok()?;
    let prefix = u8::from_str_radix(words.get(1)?, 16).ok()?;
    let to = IpNet::new(IpAddr::V6(Ipv6Addr::from(to)), prefix).ok()?;
    Some(Route { interface: (*words.get(9)?).to_owned(), to })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_kernel() {
        let heading = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT";
        assert_eq!(route4(heading), None);
        if cfg!(target_endian = "little") {
            let line = "eth0\t00030A0A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0";
            let to = "10.10.3.0/24".parse().unwrap();
            assert_eq!(route4(line), Some(Route { interface: "eth0".to_owned(), to }));
            let default = route4("eth0\t00000000\t014DA8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0").unwrap();
            assert!(!matters(&default));
        }
        let line = "fd770000000000000000000000000000 40 00000000000000000000000000000000 00 \
                    00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0";
        let route = route6(line).unwrap();
        assert_eq!((route.to, route.interface.as_str()), ("fd77::/64".parse().unwrap(), "eth0"));
        assert!(matters(&route));
        let own = Route { interface: "mesh-host".to_owned(), to: route.to };
        assert!(
            !matters(&own)
                && !matters(&Route { interface: "eth0".to_owned(), to: "fe80::/64".parse().unwrap() })
        );
    }
}
