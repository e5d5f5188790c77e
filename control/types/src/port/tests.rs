use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::InterfaceName;

fn read(text: &str) -> PortConfig {
    text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
}

fn error(text: &str) -> String {
    PortConfig::parse_all(text).unwrap_err().to_string()
}

#[test]
fn short_forms() {
    let plain = |text: &str| read(text).to_string();
    assert_eq!(plain("80:80"), "80:80/tcp");
    assert_eq!(plain("8080:80/udp"), "8080:80/udp");
    assert_eq!(plain("80"), "80/tcp");
    assert_eq!(plain("7:7/sctp"), "7:7/sctp");
    let here = read("10.0.0.5:8080:80/udp");
    assert_eq!(here.at, PublishAt::Address("10.0.0.5".parse().unwrap()));
    assert_eq!((here.published, here.target, here.protocol), (8080, 80, Protocol::Udp));
    assert_eq!(read("[fd00::5]:80:81").at, PublishAt::Address("fd00::5".parse().unwrap()));
    assert_eq!(read("[::ffff:10.0.0.5]:80:81").at, here.at);
    assert_eq!(read("eth0:80:81").at, PublishAt::Interface(InterfaceName::new("eth0").unwrap()));
    assert_eq!(read("*:80:81"), read("80:81"));
    assert_eq!(read("eth0::81").published, 0);
}

#[test]
fn fields() {
    let long = read("published=8080,target=80,protocol=udp,mode=host");
    assert_eq!(long.to_string(), "8080:80/udp,mode=host");
    assert_eq!(read("8080:80/udp,mode=host"), long);
    assert_eq!(read("target=80,address=10.0.0.5,published=1"), read("10.0.0.5:1:80"));
    assert_eq!(read("target=80,address=fd00::5,published=1"), read("[fd00::5]:1:80"));
    assert_eq!(read("target=80,interface=eth0,published=1,return=direct"), read("eth0:1:80,return=direct"));
    assert_eq!(read("80:80,return=direct").return_mode, ReturnMode::Direct);
    assert_eq!(read("80:80,mode=ingress,return=tunnel"), read("80:80"));
}

#[test]
fn ranges() {
    let ports = |text: &str| {
        PortConfig::parse_all(text).unwrap().iter().map(|p| (p.published, p.target)).collect::<Vec<_>>()
    };
    assert_eq!(ports("8000-8002:9000-9002/udp"), [(8000, 9000), (8001, 9001), (8002, 9002)]);
    assert_eq!(ports("8000-8001"), [(0, 8000), (0, 8001)]);
    assert_eq!(ports("published=1-2,target=1-2"), [(1, 1), (2, 2)]);
    assert_eq!(ports("65535:65535-65535"), [(65535, 65535)]);
    assert_eq!(ports("1-65535").len(), 65535);
    assert!(error("8000-8002:80").contains("differ in length"));
    assert!(error("8002-8000:8000-8002").contains("8002-8000"));
    assert!(error("8000-:80").contains("\"\""));
    assert!("1-2:1-2".parse::<PortConfig>().unwrap_err().to_string().contains("2 ports"));
}

#[test]
fn errors_name_the_part() {
    assert!(error("80:x").contains("\"x\""));
    assert!(error("80:80/icmp").contains("icmp"));
    assert!(error("0:80").contains("\"0\""));
    assert!(error("published=80").contains("target"));
    assert!(error("foo=1").contains("foo"));
    assert!(error("70000:80").contains("70000"));
    assert!(error("80:80,mode=global").contains("global"));
    assert!(error("80:80,return=x").contains("tunnel or direct"));
    assert!(error("80:80,udp").contains("udp"));
    assert!(error("80:80,published=80").contains("twice"));
    assert!(error("eth0:80").contains("eth0"));
    assert!(error("80:80:80").contains("neither"));
    assert!(error("0.0.0.0:80:80").contains("leave it out"));
    assert!(error("224.0.0.1:80:80").contains("224.0.0.1"));
    assert!(error("fd00::5:80:80").contains("[fd00::5]"));
    assert!(error("target=1,address=eth0").contains("eth0"));
    for bad in
        ["", ":", "::", ":80", "80:", "a:b:c:d", "[fd00::5:80:80", "[eth0]:80:80", "[]:80:80", ",", "1,"]
    {
        assert!(PortConfig::parse_all(bad).is_err(), "{bad}");
    }
}

#[test]
fn clashes() {
    let clash = |a: &str, b: &str| {
        let clash = read(a).clashes(&read(b));
        assert_eq!(clash, read(b).clashes(&read(a)), "{a} {b}");
        clash
    };
    assert!(clash("80:80", "80:81,mode=host"));
    assert!(clash("80:80", "10.0.0.5:80:80"));
    assert!(clash("80:80", "eth0:80:80"));
    assert!(clash("10.0.0.5:80:80", "10.0.0.5:80:1"));
    assert!(!clash("80:80", "80:80/udp"));
    assert!(!clash("80:80", "81:80"));
    assert!(!clash("10.0.0.5:80:80", "10.0.0.6:80:80"));
    assert!(!clash("10.0.0.5:80:80", "eth0:80:80"));
    assert!(!clash("eth1:80:80", "eth0:80:80"));
}

#[test]
fn filters() {
    let fits = |filter: &str, port: &str| filter.parse::<PortFilter>().unwrap().matches(&read(port));
    for (filter, port) in [
        ("80", "80:1"),
        ("80", "10.0.0.5:80:1,mode=host"),
        ("80/udp", "80:1/udp"),
        ("80:1", "80:1"),
        ("70-90", "80:1"),
        ("eth0:80", "eth0:80:1"),
        ("[fd00::5]:80", "[fd00::5]:80:1"),
        ("[fd00::5]:80:1", "[fd00::5]:80:1"),
        ("*:80", "80:1"),
        ("target=1", "80:1"),
        ("published=80,mode=host", "80:1,mode=host"),
    ] {
        assert!(fits(filter, port), "{filter} {port}");
    }
    for (filter, port) in [
        ("80", "80:1/udp"),
        ("80", "81:80"),
        ("80:2", "80:1"),
        ("eth0:80", "80:1"),
        ("*:80", "eth0:80:1"),
        ("10.0.0.5:80", "10.0.0.6:80:1"),
        ("80,mode=host", "80:1"),
        ("80,return=direct", "80:1"),
    ] {
        assert!(!fits(filter, port), "{filter} {port}");
    }
    for bad in ["", "mode=host", "0", "x", "80/x", "a:b:c:d", "65536", "/udp", "eth0:", "80:"] {
        assert!(bad.parse::<PortFilter>().is_err(), "{bad}");
    }
}

fn place() -> impl Strategy<Value = PublishAt> {
    prop_oneof![
        Just(PublishAt::Any),
        any::<IpAddr>().prop_filter_map("no node's", |a| PublishAt::address(a).ok()),
        "[a-z][a-z0-9.@-]{0,14}"
            .prop_filter_map("no name", |t| InterfaceName::new(&t).ok().map(PublishAt::Interface)),
    ]
}

fn port() -> impl Strategy<Value = PortConfig> {
    (place(), any::<u16>(), 1u16.., 0usize..3, any::<(bool, bool)>()).prop_map(
        |(at, published, target, protocol, (host, direct))| PortConfig {
            published,
            target,
            protocol: [Protocol::Tcp, Protocol::Udp, Protocol::Sctp][protocol],
            mode: if host { PublishMode::Host } else { PublishMode::Ingress },
            at,
            return_mode: if direct { ReturnMode::Direct } else { ReturnMode::Tunnel },
        },
    )
}

proptest! {
    #[test]
    fn text_round_trips(port in port()) {
        prop_assert_eq!(port.to_string().parse(), Ok(port));
        prop_assert!(port.clashes(&port));
    }

    #[test]
    fn a_ports_own_text_finds_it(port in port()) {
        prop_assume!(port.published != 0);
        let filter: PortFilter = port.to_string().parse().unwrap();
        prop_assert!(filter.matches(&port));
        prop_assert_eq!(filter.to_string().parse(), Ok(filter));
    }

    #[test]
    fn noise_never_panics(text in ".{0,40}", near in "[0-9:\\[\\]/,=a-z-]{0,24}") {
        for text in [text, near] {
            let _ = PortConfig::parse_all(&text);
            let _ = text.parse::<PortFilter>();
        }
    }
}
