//! Programs that keep a machine's rules. What is put into their chains by hand is gone when they load theirs anew: they have to
//! be told themselves.

use std::fmt;

use ipnet::IpNet;

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Keeper {
    /// Ubuntu's uncomplicated firewall, which works by iptables.
    Ufw,
    /// firewalld, which has a table of its own in nftables.
    Firewalld,
}

impl fmt::Display for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ufw => "ufw",
            Self::Firewalld => "firewalld",
        })
    }
}

/// What is permanent in firewalld is in force after this.
const RELOAD: &str = "firewall-cmd --reload";

impl Keeper {
    /// The commands that let packets to `ports`, each a number and a protocol, in from `sources`
    /// (docs/firewall-and-cloud.md).
    pub fn let_in(self, ports: &[(u16, &str)], sources: &[String]) -> Vec<String> {
        match self {
            Self::Ufw => {
                let of = |protocol: &str| {
                    let ports = ports.iter().filter(|(_, of)| *of == protocol);
                    ports.map(|(port, _)| port.to_string()).collect::<Vec<_>>().join(",")
                };
                let all = ["tcp", "udp"].map(|protocol| (protocol, of(protocol)));
                let all = all.iter().filter(|(_, ports)| !ports.is_empty());
                let rule = |source: &String, protocol: &str, ports: &str| {
                    format!("ufw allow from {source} to any port {ports} proto {protocol}")
                };
                all.flat_map(|(protocol, ports)| {
                    sources.iter().map(move |source| rule(source, protocol, ports))
                })
                .collect()
            }
            Self::Firewalld => {
                let ports: String =
                    ports.iter().map(|(port, protocol)| format!(" --add-port={port}/{protocol}")).collect();
                let mut commands = vec![
                    "firewall-cmd --permanent --new-service=mesh".to_owned(),
                    format!("firewall-cmd --permanent --service=mesh{ports}"),
                ];
                commands.extend(sources.iter().map(|source| {
                    let family = if source.contains(':') { "ipv6" } else { "ipv4" };
                    format!(
                        "firewall-cmd --permanent --add-rich-rule='rule family={family} source address={source} \
                         service name=mesh accept'"
                    )
                }));
                commands.push(RELOAD.to_owned());
                commands
            }
        }
    }

    /// The commands that let what is forwarded from `pools` pass, and the answers.
    pub fn let_out(self, pools: &[IpNet]) -> Vec<String> {
        match self {
            Self::Ufw => pools.iter().map(|pool| format!("ufw route allow from {pool}")).collect(),
            Self::Firewalld => {
                let policy = |words: &str| format!("firewall-cmd --permanent --policy=mesh-tasks {words}");
                let mut commands = vec![
                    "firewall-cmd --permanent --new-policy=mesh-tasks".to_owned(),
                    policy("--add-ingress-zone=ANY"),
                    policy("--add-egress-zone=ANY"),
                ];
                commands.extend(pools.iter().map(|pool| {
                    let family = if pool.addr().is_ipv4() { "ipv4" } else { "ipv6" };
                    policy(&format!("--add-rich-rule='rule family={family} source address={pool} accept'"))
                }));
                commands.push(RELOAD.to_owned());
                commands
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORTS: [(u16, &str); 3] = [(2377, "tcp"), (7946, "tcp"), (7946, "udp")];

    #[test]
    fn ports_are_let_in_by_the_keepers_own_words() {
        let sources = ["192.0.2.0/24".to_owned(), "2001:db8::/64".to_owned()];
        assert_eq!(
            Keeper::Ufw.let_in(&PORTS, &sources[..1]),
            [
                "ufw allow from 192.0.2.0/24 to any port 2377,7946 proto tcp",
                "ufw allow from 192.0.2.0/24 to any port 7946 proto udp"
            ]
        );
        let commands = Keeper::Firewalld.let_in(&PORTS, &sources);
        assert_eq!(commands.len(), 5);
        assert!(commands[1].ends_with("--add-port=2377/tcp --add-port=7946/tcp --add-port=7946/udp"));
        assert!(commands[3].contains("family=ipv6 source address=2001:db8::/64 service"), "{commands:?}");
    }

    #[test]
    fn tasks_are_let_out_by_the_keepers_own_words() {
        let pools = ["169.254.64.0/18", "fd6d:6573:6864::/96"].map(|pool| pool.parse().unwrap());
        assert_eq!(
            Keeper::Ufw.let_out(&pools),
            ["ufw route allow from 169.254.64.0/18", "ufw route allow from fd6d:6573:6864::/96"]
        );
        let commands = Keeper::Firewalld.let_out(&pools);
        assert!(commands[3].ends_with("'rule family=ipv4 source address=169.254.64.0/18 accept'"));
        assert!(commands[4].contains("family=ipv6"), "{commands:?}");
    }
}
