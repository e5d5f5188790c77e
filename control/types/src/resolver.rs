//! What a task's resolver is told, and the task's host name.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    str::FromStr,
};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Name servers of one task at most; no resolver asks more (resolv.conf(5), MAXNS).
pub const MAX_NAMESERVERS: usize = 3;
/// As a task's name server: the one that listened at 127.0.0.11 in its namespace before the task's own, such as Docker's,
/// which an nftables rule of its own leads there. Names that are not ours are asked of it.
pub const PREVIOUS_NAMESERVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 10);
/// Search domains of one task at most.
pub const MAX_SEARCH_DOMAINS: usize = 16;

/// A task's settings for names, as `resolv.conf` has them, and its host name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskDns {
    /// Asked for names outside, in this order; the node's own when there are none.
    pub servers: Vec<Nameserver>,
    /// Domains that names are looked for in.
    pub search: Vec<SearchDomain>,
    /// Options of the resolver.
    pub options: Vec<ResolverOption>,
    /// A further name of the task on its networks.
    pub hostname: Option<Hostname>,
}

/// Why settings for names cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ResolverError {
    /// Not the address of a name server.
    #[error("name server {given:?}: {problem}")]
    Nameserver {
        /// What was given.
        given: String,
        /// Why.
        problem: &'static str,
    },
    /// Too many name servers.
    #[error("{0} name servers are too many: a resolver asks at most {MAX_NAMESERVERS}")]
    Nameservers(usize),
    /// Not a domain.
    #[error(
        "search domain {0:?} is no domain name such as corp.example: labels of 1 to 63 letters, digits, '-' and '_', at \
         most 253 characters together; a single '.' stands for none"
    )]
    SearchDomain(String),
    /// Too many domains.
    #[error("{0} search domains are too many: at most {MAX_SEARCH_DOMAINS}")]
    SearchDomains(usize),
    /// `.` beside others.
    #[error("search domain \".\" stands for none, so it cannot be given together with others")]
    NoneAndSome,
    /// Not an option.
    #[error("resolver option {given:?} {problem}")]
    Option {
        /// What was given.
        given: String,
        /// Why.
        problem: String,
    },
    /// Not a host name.
    #[error(
        "host name {0:?}: 1 to 63 letters, digits, '-' and '.' are allowed, and each part between dots begins and ends with \
         a letter or digit"
    )]
    Hostname(String),
}

/// The address of a name server that a task asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "IpAddr", into = "IpAddr")]
pub struct Nameserver(IpAddr);

impl Nameserver {
    /// Its address.
    pub fn address(self) -> IpAddr {
        self.0
    }

    /// Whether it is [`PREVIOUS_NAMESERVER`].
    pub fn is_previous(self) -> bool {
        self.0 == IpAddr::V4(PREVIOUS_NAMESERVER)
    }
}

impl TryFrom<IpAddr> for Nameserver {
    type Error = ResolverError;
    fn try_from(address: IpAddr) -> Result<Self, ResolverError> {
        let bad = |problem| Err(ResolverError::Nameserver { given: address.to_string(), problem });
        match address {
            IpAddr::V4(a) if a.octets() == [127, 0, 0, 11] => {
                bad("that is where the task's own name server listens, which would ask itself")
            }
            IpAddr::V4(a) if a.is_broadcast() || a.octets()[0] == 0 => bad("that is no address of a host"),
            IpAddr::V6(a) if a.is_unicast_link_local() => bad("a link-local address says no link"),
            a if a.is_unspecified() || a.is_multicast() => bad("that is no address of a host"),
            a => Ok(Self(a)),
        }
    }
}

impl FromStr for Nameserver {
    type Err = ResolverError;
    fn from_str(text: &str) -> Result<Self, ResolverError> {
        let problem = "an IP address is needed, for example 192.0.2.53";
        let address: IpAddr =
            text.parse().map_err(|_| ResolverError::Nameserver { given: text.to_owned(), problem })?;
        address.try_into()
    }
}

impl From<Nameserver> for IpAddr {
    fn from(server: Nameserver) -> Self {
        server.0
    }
}

impl fmt::Display for Nameserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident: $check:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// As it was written.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = ResolverError;
            fn try_from(text: String) -> Result<Self, ResolverError> {
                $check(&text)?;
                Ok(Self(text))
            }
        }

        impl FromStr for $name {
            type Err = ResolverError;
            fn from_str(text: &str) -> Result<Self, ResolverError> {
                text.to_owned().try_into()
            }
        }

        impl From<$name> for String {
            fn from(text: $name) -> Self {
                text.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    )*};
}

texts! {
    /// A domain that names are looked for in; `.` stands for none.
    SearchDomain: check_domain;
    /// An option of the resolver, such as `ndots:1` (resolv.conf(5)).
    ResolverOption: check_option;
    /// A host name (RFC 1123, section 2.1).
    Hostname: check_hostname;
}

impl SearchDomain {
    /// Whether it is `.`.
    pub fn is_none(&self) -> bool {
        self.0 == "."
    }
}

impl ResolverOption {
    /// The number behind `ndots:`, if it is that option.
    pub fn ndots(&self) -> Option<u8> {
        self.0.strip_prefix("ndots:")?.parse().ok()
    }
}

impl TaskDns {
    /// Checks what the parts cannot see.
    pub fn check(&self) -> Result<(), ResolverError> {
        match (self.servers.len(), self.search.len()) {
            (many, _) if many > MAX_NAMESERVERS => Err(ResolverError::Nameservers(many)),
            (_, many) if many > MAX_SEARCH_DOMAINS => Err(ResolverError::SearchDomains(many)),
            (_, 2..) if self.search.iter().any(SearchDomain::is_none) => Err(ResolverError::NoneAndSome),
            _ => Ok(()),
        }
    }
}

fn check_domain(text: &str) -> Result<(), ResolverError> {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let label = |label: &str| (1..=63).contains(&label.len()) && label.chars().all(inner);
    let whole = text.strip_suffix('.').unwrap_or(text);
    let good = text == "." || (whole.len() <= 253 && whole.split('.').all(label));
    if good { Ok(()) } else { Err(ResolverError::SearchDomain(text.to_owned())) }
}

fn check_hostname(text: &str) -> Result<(), ResolverError> {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let label = |label: &str| {
        let inner = label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        inner && edge(label.chars().next()) && edge(label.chars().next_back())
    };
    let good = text.len() <= 63 && text.split('.').all(label);
    if good { Ok(()) } else { Err(ResolverError::Hostname(text.to_owned())) }
}

/// Options with a number, and the largest one that glibc takes.
const NUMBERED: [(&str, u8); 3] = [("ndots", 15), ("timeout", 30), ("attempts", 5)];
const PLAIN: [&str; 15] = [
    "debug",
    "edns0",
    "inet6",
    "ip6-bytestring",
    "ip6-dotint",
    "no-aaaa",
    "no-check-names",
    "no-ip6-dotint",
    "no-reload",
    "no-tld-query",
    "rotate",
    "single-request",
    "single-request-reopen",
    "trust-ad",
    "use-vc",
];

fn check_option(text: &str) -> Result<(), ResolverError> {
    let bad = |problem: String| Err(ResolverError::Option { given: text.to_owned(), problem });
    let Some((name, number)) = text.split_once(':') else {
        return match NUMBERED.iter().find(|(name, _)| *name == text) {
            Some((name, _)) => bad(format!("needs a number, for example {name}:1")),
            None if PLAIN.contains(&text) => Ok(()),
            None => {
                let numbered = NUMBERED.map(|(name, _)| format!("{name}:N"));
                bad(format!("is not known; there are {}, {}", numbered.join(", "), PLAIN.join(", ")))
            }
        };
    };
    match NUMBERED.iter().find(|(known, _)| *known == name) {
        None => bad("is not known; ndots, timeout and attempts take a number".to_owned()),
        Some((_, most)) if number.parse().is_ok_and(|n: u8| n <= *most && number.len() <= 2) => Ok(()),
        Some((_, most)) => bad(format!("needs a number of 0 to {most}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers() {
        for good in ["192.0.2.53", "2001:db8::53", "10.10.3.9", "127.0.0.53"] {
            assert_eq!(good.parse::<Nameserver>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            "dns.example",
            "0.0.0.0",
            "127.0.0.11",
            "224.0.0.1",
            "::",
            "fe80::1",
            "ff02::1",
            "1.1.1.1:53",
        ] {
            let error = bad.parse::<Nameserver>().unwrap_err().to_string();
            assert!(error.contains(bad), "{error}");
        }
    }

    #[test]
    fn search_domains() {
        for good in [".", "corp.example", "corp.example.", "prod", "_tcp.example"] {
            assert!(good.parse::<SearchDomain>().is_ok(), "{good}");
        }
        let long = "a".repeat(64);
        for bad in ["", "..", "a..b", ".a", "a b", "a,b", &long, &"a.".repeat(127).repeat(2)] {
            assert!(bad.parse::<SearchDomain>().is_err(), "{bad}");
        }
    }

    #[test]
    fn options() {
        for good in
            ["ndots:0", "ndots:15", "timeout:2", "attempts:5", "use-vc", "rotate", "single-request-reopen"]
        {
            assert!(good.parse::<ResolverOption>().is_ok(), "{good}");
        }
        for (bad, word) in [
            ("ndot:1", "not known"),
            ("ndots", "needs a number"),
            ("ndots:", "0 to 15"),
            ("ndots:16", "0 to 15"),
            ("ndots:-1", "0 to 15"),
            ("rotate:1", "take a number"),
            ("Rotate", "there are ndots:N"),
            ("", "not known"),
            ("rotate\nnameserver 1.1.1.1", "not known"),
        ] {
            let error = bad.parse::<ResolverOption>().unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
        assert_eq!("ndots:2".parse::<ResolverOption>().unwrap().ndots(), Some(2));
        assert_eq!("rotate".parse::<ResolverOption>().unwrap().ndots(), None);
    }

    #[test]
    fn host_names() {
        for good in ["web", "web-1.corp.example", "9"] {
            assert!(good.parse::<Hostname>().is_ok(), "{good}");
        }
        for bad in ["", "-web", "web-", "we_b", "a..b", "web.", "wéb", &"a".repeat(64)] {
            assert!(bad.parse::<Hostname>().is_err(), "{bad}");
        }
    }

    #[test]
    fn together() {
        let server: Nameserver = "192.0.2.1".parse().unwrap();
        let domain = |text: &str| text.parse::<SearchDomain>().unwrap();
        let dns = |servers, search| TaskDns { servers: vec![server; servers], search, ..TaskDns::default() };
        assert_eq!(dns(3, vec![domain("."),]).check(), Ok(()));
        assert_eq!(dns(4, vec![]).check(), Err(ResolverError::Nameservers(4)));
        assert_eq!(dns(0, vec![domain("a"), domain(".")]).check(), Err(ResolverError::NoneAndSome));
        assert_eq!(dns(0, vec![domain("a"); 17]).check(), Err(ResolverError::SearchDomains(17)));
    }
}
