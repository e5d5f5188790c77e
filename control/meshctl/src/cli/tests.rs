use clap::{CommandFactory, Parser, error::ErrorKind};

use super::Cli;

mod documented;

fn parse(words: &str) -> Result<Cli, ErrorKind> {
    let words = std::iter::once("meshctl").chain(words.split_whitespace());
    Cli::try_parse_from(words).map_err(|error| error.kind())
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn hidden_verbs_are_no_tips() {
    let mut error = Cli::try_parse_from(["meshctl", "systemd-nets"]).unwrap_err();
    assert!(error.to_string().contains("systemd-netns"), "clap gives other tips now: {error}");
    super::leave_out_hidden(&mut error);
    let text = error.to_string();
    assert!(!text.contains("systemd-netns") && text.contains("systemd-detach"), "{text}");
    assert!(!Cli::command().render_help().to_string().contains("systemd-netns"));
}

#[test]
fn every_verb_has_examples() {
    fn check(command: &clap::Command, path: &str) {
        let verbs: Vec<_> = command.get_subcommands().collect();
        if verbs.is_empty() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Examples:") && help.contains(path), "{path}: {help}");
            assert!(!help.contains('\t'), "{path} shows a tab where \\t is to be typed: {help}");
        }
        for verb in verbs {
            check(verb, &format!("{path} {}", verb.get_name()));
        }
    }
    check(&Cli::command(), "meshctl");
}

#[test]
fn accepts() {
    for words in [
        "init",
        "init --advertise-addr eth0 --data-path-addr 10.0.0.1 --listen-addr 0.0.0.0:2377 --name n1",
        "init --default-addr-pool 10.64.0.0/10",
        "join --token T --advertise-addr 192.168.1.2 192.168.1.1:2377 192.168.1.3",
        "leave --force",
        "status",
        "join-token",
        "join-token --rotate --quiet manager",
        "node ls",
        "node inspect",
        "node rm n1 n2",
        "network create --driver overlay --subnet 10.10.3.0/24 prod",
        "network create --subnet 10.10.3.0/24 --gateway 10.10.3.9 --attachable --internal --label a=b --opt mtu=1400 x",
        "network ls -q --filter name=prod --filter internal=true",
        "node ls -q --no-trunc --filter role=manager -f label=a=b",
        "service ls --filter mode=vip --filter port=80",
        "service ps -q --filter node=n1 web",
        "task ls --filter state=ready --filter health=none",
        "--color never node ls --format {{.Name}}",
        "network inspect prod",
        "network rm a b",
        "service create --network a --network b --alias w --publish 80:80 --publish 53:53/udp --endpoint-mode dnsrr web",
        "service ps web",
        "publish 8080:80/udp web",
        "publish published=8080,target=80,protocol=udp web",
        "publish --return direct 10.0.0.5:8000-8010:8000-8010/sctp web",
        "publish [fd00::5]:80:80 web",
        "publish eth0:80:80,mode=host web",
        "service update --affinity client-ip --publish-add 80:80 --publish-rm 80 web",
        "service create --prefer-local --drain-timeout 0 web",
        "node update --availability pause --label-add a=b --label-rm c n1",
        "network create --ipv6 --ip-range 10.10.3.0/25 --subnet 10.10.3.0/24 x",
        "run --service s --ip 10.0.0.1 --ip6 fd00::1 --weight 100 --drain-timeout 1m30s -- true",
        "run --network a --dns 192.0.2.53 --dns 2001:db8::53 --dns-search . --dns-option ndots:2 --hostname db-1.x -- true",
        "attach --network a --dns-search corp.example --dns-opt rotate --hostname db red",
        "dns lookup --from web.1 db",
        "dns lookup --from web.1 --type SRV _http._tcp.web",
        "unpublish 8080/udp",
        "unpublish 80:80",
        "unpublish 8080 web",
        "attach --network a --name t --ip 10.10.3.9 --alias x red",
        "attach --service web 4711",
        "detach t",
        "run --network a --service s --name t -- curl -v http://web/",
        "run --network a curl -v http://web/",
        "task ls --network a --service b",
        "task inspect a b",
        "task update --weight 100 a",
        "task drain --timeout 1m30s --wait a",
        "detach --force t",
        "run --service s --stop-signal QUIT -- true",
        "systemd-attach --network prod --alias db --print redis",
        "systemd-attach --service web --unit-dir /tmp/x nginx.service",
        "systemd-detach nginx",
        "publish --wait --timeout 30s 80:80 web",
        "completion zsh",
        "--socket /x --format json node ls",
        "node ls --format json --socket /x",
    ] {
        assert!(parse(words).is_ok(), "{words}: {:?}", parse(words).err());
    }
}

#[test]
fn refuses() {
    use ErrorKind::{InvalidValue, MissingRequiredArgument, UnknownArgument, ValueValidation};
    for (words, kind) in [
        ("join 192.168.1.1", MissingRequiredArgument),
        ("join --token T", MissingRequiredArgument),
        ("network create", MissingRequiredArgument),
        ("network create --driver bridge x", InvalidValue),
        ("network create --subnet 10.10.3.1/24 x", ValueValidation),
        ("network create --subnet 10.10.3.0 x", ValueValidation),
        ("network create --opt vni=3 x", ValueValidation),
        ("network create -prod", UnknownArgument),
        ("network create prod/1", ValueValidation),
        ("network ls --filter scope=swarm", ValueValidation),
        ("publish 80:x web", ValueValidation),
        ("publish 80:80/icmp web", ValueValidation),
        ("publish 80:80", MissingRequiredArgument),
        ("publish 80-82:80 web", ValueValidation),
        ("publish --return north 80:80 web", ValueValidation),
        ("service create --affinity cookie web", ValueValidation),
        ("service create --drain-timeout 30 web", ValueValidation),
        ("node update --availability gone n1", InvalidValue),
        ("run --service s --weight 0 -- true", ValueValidation),
        ("run --service s --weight 101 -- true", ValueValidation),
        ("run --service s --ip fd00::1 -- true", ValueValidation),
        ("run --network a --dns dns.example -- true", ValueValidation),
        ("run --network a --dns 127.0.0.11 -- true", ValueValidation),
        ("run --network a --dns-search a..b -- true", ValueValidation),
        ("run --network a --dns-option ndot:1 -- true", ValueValidation),
        ("run --network a --hostname we_b -- true", ValueValidation),
        ("dns lookup db", MissingRequiredArgument),
        ("dns lookup --from web.1", MissingRequiredArgument),
        ("unpublish 80:x", ValueValidation),
        ("attach red", MissingRequiredArgument),
        ("attach --network a --ip 10.10.3 red", ValueValidation),
        ("run -- true", MissingRequiredArgument),
        ("run --network a --stop-signal QUIT -- true", MissingRequiredArgument),
        ("run --service s --stop-signal FOO -- true", ValueValidation),
        ("task update a", MissingRequiredArgument),
        ("task drain --timeout soon a", ValueValidation),
        ("run --network a", MissingRequiredArgument),
        ("run --netwrok a -- true", UnknownArgument),
        ("completion powershell", InvalidValue),
        ("node ls --format yaml", ValueValidation),
        ("node ls --format {{.Name", ValueValidation),
        ("node ls --filter role=boss", ValueValidation),
        ("node ls --color red", InvalidValue),
    ] {
        assert_eq!(parse(words).err(), Some(kind), "{words}");
    }
    let empty = Cli::try_parse_from(["meshctl", "network", "rm", ""]).map_err(|error| error.kind());
    assert_eq!(empty.err(), Some(ValueValidation));
}
