//! Published ports on the command line.

use anyhow::Result;
use mesh_api::v1;
use mesh_types::{PortConfig, PortError, PublishMode, ReturnMode};

/// One argument: a port, or all of a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ports(Vec<PortConfig>);

impl std::str::FromStr for Ports {
    type Err = PortError;

    fn from_str(text: &str) -> Result<Self, PortError> {
        PortConfig::parse_all(text).map(Self)
    }
}

impl Ports {
    /// As an error names them.
    pub fn text(&self) -> String {
        lines(&self.0)
    }

    /// With replies by the way of `--return`, if that is given.
    pub fn returning(mut self, mode: Option<ReturnMode>) -> Self {
        for port in &mut self.0 {
            port.return_mode = mode.unwrap_or(port.return_mode);
        }
        self
    }

    /// For a request.
    pub fn wire(arguments: &[Self]) -> Vec<v1::Port> {
        arguments.iter().flat_map(|argument| &argument.0).map(|port| (*port).into()).collect()
    }
}

/// Lines of ports, ranges on one line: `8000-8010:8000-8010/tcp`.
pub fn lines(ports: &[PortConfig]) -> String {
    let runs = runs(ports);
    let lines = runs.iter().map(|(first, last)| match first == last {
        true => first.to_string(),
        false => {
            // The text of the first has its options; only the numbers become ranges.
            let numbers = |port: &PortConfig| format!("{}:{}/", port.published, port.target);
            let range = format!("{}-{}:{}-{}/", first.published, last.published, first.target, last.target);
            first.to_string().replacen(&numbers(first), &range, 1)
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// As lists show them: `*:8000-8010->8000-8010/tcp`, and what is not the usual way in brackets.
pub fn arrows(ports: &[PortConfig]) -> Vec<String> {
    let numbers = |first: u16, last: u16| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    let arrow = |(first, last): &(PortConfig, PortConfig)| {
        let published = numbers(first.published, last.published);
        let target = numbers(first.target, last.target);
        let mut options = Vec::new();
        if first.mode != PublishMode::default() {
            options.push(first.mode.to_string());
        }
        if first.return_mode != ReturnMode::default() {
            options.push(format!("{} return", first.return_mode));
        }
        let options = if options.is_empty() { String::new() } else { format!(" ({})", options.join(", ")) };
        format!("{}:{published}->{target}/{}{options}", first.at, first.protocol)
    };
    runs(ports).iter().map(arrow).collect()
}

/// First and last of each run of ports that differ only in their numbers, each by one more.
fn runs(ports: &[PortConfig]) -> Vec<(PortConfig, PortConfig)> {
    let mut runs: Vec<(PortConfig, PortConfig)> = Vec::new();
    for port in ports {
        match runs.last_mut() {
            Some((_, last)) if follows(last, port) => *last = *port,
            _ => runs.push((*port, *port)),
        }
    }
    runs
}

fn follows(last: &PortConfig, next: &PortConfig) -> bool {
    let after = |n: u16| n.checked_add(1);
    let expected = after(last.published).zip(after(last.target));
    expected == Some((next.published, next.target))
        && PortConfig { published: 0, target: 0, ..*last } == PortConfig { published: 0, target: 0, ..*next }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_one_line() {
        let mut ports = PortConfig::parse_all("10.0.0.5:8000-8002:9000-9002/udp,mode=host").unwrap();
        ports.extend(PortConfig::parse_all("80:80").unwrap());
        ports.extend(PortConfig::parse_all("81:82").unwrap());
        assert_eq!(lines(&ports), "10.0.0.5:8000-8002:9000-9002/udp,mode=host\n80:80/tcp\n81:82/tcp");
        let shown = ["10.0.0.5:8000-8002->9000-9002/udp (host)", "*:80->80/tcp", "*:81->82/tcp"];
        assert_eq!(arrows(&ports), shown);
        let direct = ["[fd00::5]:1:2,return=direct".parse().unwrap()];
        assert_eq!(arrows(&direct), ["[fd00::5]:1->2/tcp (direct return)"]);
    }
}
