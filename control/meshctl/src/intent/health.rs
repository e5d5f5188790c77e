//! Health checks in files: `health:` of a `mesh.yaml`, `healthcheck:` of a Compose file.

use mesh_types::{HealthCheck, HealthSettings, Probe, format_seconds, parse_seconds};

use super::yaml::{Node, Reader};

/// `tcp:80`, `none`, or a mapping.
pub(super) fn mesh(reader: &mut Reader, node: &Node) -> Option<HealthCheck> {
    let mut settings = HealthSettings::default();
    if node.is_scalar() {
        match reader.text(node, "health")? {
            "none" => return None,
            _ => settings.probe = Some(reader.parsed(node, "health")?),
        }
    } else {
        for (key, at, value) in reader.entries(node, "a health check") {
            match key {
                // What is wrong with it is told.
                "check" => settings.probe = Some(reader.parsed::<Probe>(value, "check")?),
                "retries" => settings.retries = reader.parsed(value, "retries"),
                "interval" => settings.interval_secs = time(reader, value, key),
                "timeout" => settings.timeout_secs = time(reader, value, key),
                "start_period" => settings.start_period_secs = time(reader, value, key),
                _ => reader.problem(
                    at,
                    format!(
                        "a health check has no key {key}; there are check, interval, timeout, retries and start_period"
                    ),
                ),
            }
        }
    }
    checked(reader, node, settings)
}

fn time(reader: &mut Reader, node: &Node, what: &str) -> Option<u32> {
    let text = reader.text(node, what)?;
    parse_seconds(text).map_err(|error| reader.problem(node, format!("{what}: {error}"))).ok()
}

fn checked(reader: &mut Reader, node: &Node, settings: HealthSettings) -> Option<HealthCheck> {
    settings.over(None).map_err(|error| reader.problem(node, error.to_string())).ok()
}

/// Lines of a `mesh.yaml` that say the same, what is checked first.
pub(super) fn lines(check: &HealthCheck) -> Vec<(&'static str, String)> {
    let usual = HealthCheck::of(check.probe.clone());
    let seconds = |key, is, usual| (is != usual).then(|| (key, format_seconds(is)));
    let mut lines = vec![("check", check.probe.to_string())];
    lines.extend(seconds("interval", check.interval_secs, usual.interval_secs));
    lines.extend(seconds("timeout", check.timeout_secs, usual.timeout_secs));
    lines.extend((check.retries != usual.retries).then(|| ("retries", check.retries.to_string())));
    lines.extend(seconds("start_period", check.start_period_secs, usual.start_period_secs));
    lines
}

/// Of a Compose file: commands that ask a port of the container itself by `curl`, `wget` or `nc` become checks of that
/// port. Others would need the container's files: they are read over, and said.
pub(super) fn compose(reader: &mut Reader, node: &Node) -> Option<HealthCheck> {
    let mut settings = HealthSettings::default();
    let mut off = false;
    for (key, at, value) in reader.entries(node, "a healthcheck") {
        match key {
            "disable" => off = reader.flag(value, "disable"),
            "test" => match command(reader, value) {
                Some(words) if words.is_empty() => off = true,
                Some(words) => {
                    settings.probe = probe(&words);
                    if settings.probe.is_none() {
                        reader.ignore(
                            at,
                            "healthcheck: its command needs the container's files; say what to check with `meshctl service \
                             update --health tcp:PORT` or http:PORT/PATH",
                        );
                        off = true;
                    }
                }
                None => return None,
            },
            "retries" => settings.retries = reader.parsed(value, "retries"),
            "interval" => settings.interval_secs = whole_seconds(reader, value, key),
            "timeout" => settings.timeout_secs = whole_seconds(reader, value, key),
            "start_period" => settings.start_period_secs = whole_seconds(reader, value, key),
            _ => reader.ignore(at, format!("healthcheck key {key}")),
        }
    }
    match settings.probe {
        _ if off => None,
        // How, but not what: the image says that.
        None => {
            reader.ignore(node, "healthcheck: without test it is the image's");
            None
        }
        Some(_) => checked(reader, node, settings),
    }
}

/// Compose knows finer times.
fn whole_seconds(reader: &mut Reader, node: &Node, what: &str) -> Option<u32> {
    let text = reader.text(node, what)?;
    let seconds = parse_seconds(text).ok();
    if seconds.is_none() {
        reader
            .ignore(node, format!("healthcheck {what} {text}: only whole seconds are known; it is as usual"));
    }
    seconds
}

/// The words of a `test`; none of one that says that nothing is to be checked.
fn command(reader: &mut Reader, node: &Node) -> Option<Vec<String>> {
    let shell =
        |text: &str| text.split_whitespace().map(|word| word.trim_matches(['"', '\'']).to_owned()).collect();
    if node.is_scalar() {
        return Some(shell(reader.text(node, "test")?));
    }
    let items = reader.items(node, "test");
    let items: Vec<_> = items.iter().filter_map(|item| reader.text(item, "test")).collect();
    match items.split_first() {
        Some((&"NONE", _)) => Some(Vec::new()),
        Some((&"CMD", words)) if !words.is_empty() => Some(words.iter().map(|w| (*w).to_owned()).collect()),
        Some((&"CMD-SHELL", words)) if !words.is_empty() => Some(shell(&words.join(" "))),
        _ => {
            reader.problem(node, "test has to begin with NONE, CMD or CMD-SHELL, and a command after these");
            None
        }
    }
}

/// What a command asks of the container itself, where that is all that it does.
fn probe(words: &[String]) -> Option<Probe> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let words =
        words.strip_suffix(&["||", "exit", "1"]).or(words.strip_suffix(&["||", "false"])).unwrap_or(&words);
    let (program, rest) = words.split_first()?;
    let (flags, rest): (Vec<&str>, Vec<&str>) = rest.iter().partition(|word| word.starts_with('-'));
    let known = |known: &[&str]| flags.iter().all(|flag| known.contains(flag));
    let letters = |flag: &&str, known: &str| {
        flag.strip_prefix('-').is_some_and(|letters| letters.chars().all(|c| known.contains(c)))
    };
    match (*program, rest.as_slice()) {
        ("curl", [url]) => {
            let fails = |flag: &&str| *flag == "--fail" || letters(flag, "fsSI") && flag.contains('f');
            let quiet = |flag: &&str| {
                letters(flag, "fsSI") || ["--fail", "--silent", "--show-error", "--head"].contains(flag)
            };
            (flags.iter().any(fails) && flags.iter().all(quiet)).then(|| url_probe(url))?
        }
        ("wget", [url]) => {
            known(&["-q", "-nv", "--quiet", "--no-verbose", "--spider"]).then(|| url_probe(url))?
        }
        ("nc", [host, port]) if own(host) && known(&["-z", "-v", "-zv", "-vz"]) && !flags.is_empty() => {
            format!("tcp:{port}").parse().ok()
        }
        _ => None,
    }
}

/// `http://localhost:8080/ready`, or without what is usual.
fn url_probe(url: &str) -> Option<Probe> {
    let rest = url.strip_prefix("http://").or((!url.contains("://")).then_some(url))?;
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (host, port) = host.split_once(':').unwrap_or((host, "80"));
    own(host).then(|| format!("http:{port}{path}").parse().ok())?
}

fn own(host: &str) -> bool {
    ["localhost", "127.0.0.1", "0.0.0.0"].contains(&host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_that_ask_a_port() {
        for (text, wanted) in [
            ("curl -f http://localhost", Some("http:80/")),
            ("curl -sfS http://localhost:8080/ready?x=1 || exit 1", Some("http:8080/ready?x=1")),
            ("curl --fail --silent 127.0.0.1/up", Some("http:80/up")),
            ("wget -q --spider http://localhost:3000/", Some("http:3000/")),
            ("nc -z localhost 6379 || false", Some("tcp:6379")),
            // Always succeeds, whatever the server says.
            ("curl http://localhost", None),
            ("curl -f https://localhost", None),
            ("curl -f -H X:y http://localhost", None),
            ("curl -f http://db:80/", None),
            ("curl -f http://localhost && test -f /ok", None),
            ("nc localhost 80", None),
            ("redis-cli ping", None),
            ("", None),
        ] {
            let words: Vec<_> = text.split_whitespace().map(str::to_owned).collect();
            assert_eq!(probe(&words).map(|p| p.to_string()).as_deref(), wanted, "{text}");
        }
    }
}
