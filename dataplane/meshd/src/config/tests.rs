use std::path::Path;

use clap::Parser;

use super::*;

fn load(text: &str, flags: &[&str]) -> Result<Config> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("meshd.toml");
    std::fs::write(&file, text)?;
    let file = file.display().to_string();
    let args = ["meshd", "--config", &file].into_iter().chain(flags.iter().copied());
    Config::load(&Flags::try_parse_from(args)?)
}

/// What is said of a file, a line each, without the folder.
fn findings(text: &str, flags: &[&str]) -> Vec<String> {
    let error = load(text, flags).unwrap_err();
    let findings = error.downcast_ref::<Findings>().unwrap().to_string();
    let lines = findings.lines().skip(1).map(str::trim);
    lines.map(|line| line.split_once("meshd.toml:").map_or(line, |(_, rest)| rest).to_owned()).collect()
}

#[test]
fn flags_win_over_the_file_and_the_file_over_defaults() {
    let config = load("state_dir = '/a'\nrun_dir = '/b'", &["--run-dir", "/c"]).unwrap();
    assert_eq!(config.state_dir, Path::new("/a"));
    assert_eq!(config.run_dir, Path::new("/c"));
    assert_eq!(config.bpf_dir, Path::new("/sys/fs/bpf/meshd"));
    let again: Config = toml::from_str(&config.to_toml().unwrap()).unwrap();
    assert_eq!(again, config);
}

#[test]
fn limits_and_timeouts_reach_the_data_path() {
    let text =
        "uplinks = ['eth0', 'eth1.7']\nuplink_hook = 'tc'\n[limits]\nflows = 5000\n[conntrack]\nudp = 7";
    let config = load(text, &[]).unwrap();
    let options = config.data_path();
    assert_eq!((options.sizes.flows, options.sizes.peers), (5000, Sizes::default().peers));
    assert_eq!(options.timeouts.udp, Duration::from_secs(7));
    assert_eq!(options.timeouts.tcp_established, Duration::from_secs(5 * 24 * 3600));
    assert_eq!(options.uplink_hook, UplinkHook::Tc);
    let again: Config = toml::from_str(&config.to_toml().unwrap()).unwrap();
    assert_eq!(again, config);
    assert_eq!(toml::from_str::<Config>(&Config::default().to_toml().unwrap()).unwrap(), Config::default());
}

#[test]
fn all_faults_are_told_with_line_and_key() {
    let text = "# a comment\nstate-dir = '/a'\nlog = 'inof'\npath = 'quick'\nflows = 3\nconntrack = 7\n\
                run_dir = 'run'\nfrobnicate = 1\n\n[limits]\nflow = 1\npeers = 0\nclients = -1\n[limit]\n";
    let found = findings(text, &[]);
    let expected = [
        ("2: state-dir: ", "did you mean `state_dir`?"),
        ("3: log: ", "\"inof\" is no level"),
        ("4: path: ", "`quick`"),
        ("5: flows: ", "did you mean `limits.flows`?"),
        ("6: conntrack: ", "[conntrack]"),
        ("7: run_dir: ", "absolute"),
        ("8: frobnicate: ", "no such key; meshd(8)"),
        ("11: limits.flow: ", "did you mean `flows`?"),
        ("12: limits.peers: ", "at least 1"),
        ("13: limits.clients: ", "-1"),
        ("14: limit: ", "did you mean `limits`?"),
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (line, (begin, part)) in found.iter().zip(expected) {
        assert!(line.starts_with(begin) && line.contains(part), "{line:?} is not {begin:?} ... {part:?}");
    }
}

#[test]
fn faults_of_syntax_and_of_flags_are_told() {
    let found = findings("log = 'info'\nlog = 'warn'\nrun_dir = \n", &[]);
    assert!(found.iter().any(|line| line.starts_with("2: no TOML: ")), "{found:?}");
    assert!(found.iter().any(|line| line.starts_with("3: no TOML: ")), "{found:?}");
    assert_eq!(
        findings("state_dir = '/x'", &["--run-dir", "/x"]),
        ["run_dir: /x is state_dir too; give each a folder of its own"]
    );
    assert!(findings("uplinks = ['eth0', 'a/b']", &[])[0].starts_with("1: uplinks: \"a/b\""));
    let flags = Flags::try_parse_from(["meshd", "--config", "/nonexistent/meshd.toml"]).unwrap();
    assert!(format!("{:#}", Config::load(&flags).unwrap_err()).contains("/nonexistent/meshd.toml"));
}

#[test]
fn a_listener_needs_an_address_with_a_port_or_none() {
    for good in ["", "127.0.0.1:9476", "[::]:80", "0.0.0.0:9476"] {
        assert!(load(&format!("[metrics]\nlisten = '{good}'"), &[]).is_ok(), "{good}");
    }
    for bad in ["127.0.0.1", ":9476", "9476", "localhost:9476", "127.0.0.1:99999", "::1:9476"] {
        let found = findings(&format!("[metrics]\nlisten = '{bad}'"), &[]);
        assert!(
            found[0].starts_with("2: metrics.listen: ") && found[0].contains("such as 127.0.0.1:9476"),
            "{found:?}"
        );
    }
}

#[test]
fn a_dashboard_s_sessions_are_checked() {
    for good in ["listen = ''", "listen = '[::]:7380'", "idle = 1", "idle = 60\nsession = 60"] {
        assert!(load(&format!("[dashboard]\n{good}"), &[]).is_ok(), "{good}");
    }
    for (bad, told) in [
        (
            "listen = '7380'",
            "2: dashboard.listen: \"7380\": give an address with a port, such as 127.0.0.1:7380",
        ),
        ("idle = 0", "2: dashboard.idle: with 0 no session begins"),
        ("session = 60", "2: dashboard.session: 60 is less than dashboard.idle, 900"),
    ] {
        let found = findings(&format!("[dashboard]\n{bad}"), &[]);
        assert!(found.len() == 1 && found[0].starts_with(told), "{found:?}");
    }
}

#[test]
fn the_file_to_check_may_be_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("other.toml");
    std::fs::write(&file, "log = 'debug'").unwrap();
    let flags = Flags::try_parse_from(["meshd", "--check-config", &file.display().to_string()]).unwrap();
    assert!(flags.check_only());
    assert_eq!(Config::load(&flags).unwrap().log, "debug");
    assert!(Flags::try_parse_from(["meshd", "--check-config"]).unwrap().check_only());
    assert!(!Flags::try_parse_from(["meshd"]).unwrap().check_only());
}

#[test]
fn sections_are_known_as_such() {
    let written = toml::Table::try_from(Config::default()).unwrap();
    for (key, value) in &written {
        assert_eq!(
            value.is_table(),
            keys::of(Some(key)).is_some(),
            "{key}: tell `keys::of` of a new section"
        );
    }
    for key in keys::of(None).unwrap().iter().filter(|key| !written.contains_key(**key)) {
        // Left out when not set: no section then.
        assert!(keys::of(Some(key)).is_none(), "{key}");
    }
}

#[test]
fn a_change_tells_what_can_be_followed() {
    let mut now = Config::default();
    let next = Config {
        log: "debug".into(),
        health_commands: true,
        uplinks: Some(vec!["eth0".into()]),
        limits: LimitsConfig { flows: Some(9), ..LimitsConfig::default() },
        conntrack: ConntrackConfig { udp: 9, ..ConntrackConfig::default() },
        metrics: MetricsConfig { listen: String::new(), ..MetricsConfig::default() },
        dashboard: DashboardConfig { idle: 60, ..DashboardConfig::default() },
        ..Config::default()
    };
    let change = Change::between(&now, &next);
    assert_eq!(change.followed, ["conntrack", "dashboard", "health_commands", "log", "metrics"]);
    assert_eq!(change.restart, ["limits", "uplinks"]);
    now.follow(&next);
    let rest = Change::between(&now, &next);
    assert_eq!((rest.followed.len(), rest.restart), (0, change.restart));
    assert_eq!(Change::between(&next, &next), Change::default());
}

/// The packaged file, with what it has as comments set: a line `#key = value` is a setting, one with `# ` a comment.
fn packaged() -> (Config, toml::Table) {
    let text = include_str!("../../../../packaging/meshd.toml");
    assert_eq!(load(text, &[]).unwrap(), Config::default(), "the packaged file changes something");
    let set = text.lines().map(|line| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '[') => rest,
        _ => line,
    });
    let set = set.collect::<Vec<_>>().join("\n");
    (load(&set, &[]).unwrap(), set.parse().unwrap())
}

#[test]
fn the_packaged_file_explains_every_key_and_its_default() {
    let (config, table) = packaged();
    for key in keys::of(None).unwrap() {
        let value = table.get(*key).unwrap_or_else(|| panic!("packaging/meshd.toml lacks {key}"));
        for inner in keys::of(Some(key)).unwrap_or_default() {
            assert!(value.get(inner).is_some(), "packaging/meshd.toml lacks {key}.{inner}");
        }
    }
    assert_eq!(config.data_path().sizes, Sizes::default());
    let usual = Config {
        uplinks: config.uplinks.clone(),
        limits: config.limits,
        traces: TracesConfig { endpoint: config.traces.endpoint.clone(), ..TracesConfig::default() },
        ..Config::default()
    };
    assert_eq!(config, usual, "what packaging/meshd.toml shows is not the default");
}

#[test]
fn the_documentation_names_every_key() {
    let text = include_str!("../../../../docs/configuration.md");
    let sections = keys::of(None).unwrap().iter().map(|key| keys::of(Some(key)).unwrap_or_default());
    for key in keys::of(None).unwrap().iter().chain(sections.flatten()) {
        assert!(text.contains(&format!("`{key}`")) || text.contains(&format!("`[{key}]`")), "docs: {key}");
    }
}
