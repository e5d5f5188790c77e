//! The files by which systemd starts a service in a namespace of its own.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use thiserror::Error;

use super::netns;

/// The name of the drop-in among those of others.
const DROP_IN: &str = "50-meshd.conf";
/// Longest name that file systems and systemd take, less what is put around it.
const LONGEST: usize = 200;

/// Why a text names no unit that can be attached.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UnitError {
    /// Not a service.
    #[error("only services can be attached, and {0} is none")]
    Kind(String),
    /// A template stands for many services.
    #[error("{0} is a template; name one of its instances, such as {1}1.service")]
    Template(String, String),
    /// Not a name of a unit (systemd.unit(5)).
    #[error("{0:?} is no name of a unit")]
    Name(String),
    /// The path of a program cannot stand in a unit.
    #[error("the path {0} cannot stand in a unit")]
    Path(PathBuf),
}

/// A service of systemd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Without `.service`.
    stem: String,
}

/// What the unit is to be attached with.
#[derive(Debug)]
pub struct Wishes<'a> {
    /// meshctl, as an absolute path.
    pub program: &'a Path,
    /// The daemon's socket, if it is not where it usually is.
    pub socket: Option<&'a Path>,
    /// The task's options.
    pub words: &'a [String],
    /// Whether the task drains before the service stops.
    pub drains: bool,
}

impl FromStr for Unit {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let name = || UnitError::Name(text.to_owned());
        let allowed = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
        if text.is_empty()
            || text.len() > LONGEST
            || !text.chars().all(allowed)
            || text.starts_with(['.', '-'])
        {
            return Err(name());
        }
        let kinds =
            [".socket", ".target", ".timer", ".mount", ".device", ".path", ".slice", ".scope", ".swap"];
        if kinds.iter().any(|kind| text.ends_with(kind)) {
            return Err(UnitError::Kind(text.to_owned()));
        }
        let stem = text.strip_suffix(".service").unwrap_or(text);
        match stem {
            "" => Err(name()),
            _ if stem.ends_with('@') => Err(UnitError::Template(text.to_owned(), stem.to_owned())),
            _ => Ok(Self { stem: stem.to_owned() }),
        }
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.service", self.stem)
    }
}

impl Unit {
    /// Its name where `@` and `\` would mean more.
    pub fn plain(&self) -> String {
        self.stem.replace(['@', '\\', ':'], "-")
    }

    /// The unit that makes its namespace.
    pub fn helper(&self) -> String {
        format!("meshd-netns-{}.service", self.plain())
    }

    /// Where its drop-ins are.
    pub fn drop_in_dir(&self, unit_dir: &Path) -> PathBuf {
        unit_dir.join(format!("{self}.d"))
    }

    /// The files: what makes the namespace, and the drop-in.
    pub fn paths(&self, unit_dir: &Path) -> [PathBuf; 2] {
        [unit_dir.join(self.helper()), self.drop_in_dir(unit_dir).join(DROP_IN)]
    }

    /// The same with what is to be in them.
    pub fn files(&self, unit_dir: &Path, wishes: &Wishes<'_>) -> Result<[(PathBuf, String); 2], UnitError> {
        let program = path_text(wishes.program)?;
        let mut meshctl = quoted(program);
        if let Some(socket) = wishes.socket {
            meshctl.push_str(&format!(" --socket {}", quoted(path_text(socket)?)));
        }
        let plain = self.plain();
        let words: String = wishes.words.iter().map(|word| quoted(word) + " ").collect();
        let up = format!("{meshctl} systemd-netns up {words}{plain}");
        let namespace = netns::path(&plain).display().to_string();
        let resolv_conf = netns::resolv_conf(&plain).display().to_string();
        let helper = format!(
            "\
# Written by `meshctl systemd-attach`; `meshctl systemd-detach {self}` takes it away.
[Unit]
Description=Network namespace of {self}
Wants=meshd.service
After=meshd.service
PartOf={self}
StopWhenUnneeded=yes

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={up}
# After an attempt that failed too.
ExecStopPost={meshctl} systemd-netns down {plain}
TimeoutStartSec=2min
"
        );
        let mut drop_in = format!(
            "\
# Written by `meshctl systemd-attach`; `meshctl systemd-detach {self}` takes it away.
[Unit]
BindsTo={helper}
After={helper}

[Service]
NetworkNamespacePath={namespace}
BindReadOnlyPaths={resolv_conf}:/etc/resolv.conf
",
            helper = self.helper()
        );
        if wishes.drains {
            // One that has drained takes no new connections, so each start makes the task anew. A service that ends by
            // itself is out of the balance at once.
            drop_in.push_str(&format!(
                "\
ExecStartPre=+{up}
ExecStop=-+{meshctl} task drain --wait {namespace}
ExecStopPost=-+{meshctl} task drain --timeout 0s {namespace}
"
            ));
        }
        let [helper_path, drop_in_path] = self.paths(unit_dir);
        Ok([(helper_path, helper), (drop_in_path, drop_in)])
    }
}

/// What is left of the files, by their texts, of a service that runs: it keeps its namespace until it stops, and that is the
/// end of both. A restart of the service restarts the helper, which has nothing more to start.
pub fn until_stopped(unit: &Unit, helper: &str, drop_in: &str) -> [String; 2] {
    let commands = |text: &str, keys: &[&str]| -> String {
        let ours = text.lines().filter(|line| keys.iter().any(|key| line.starts_with(key)));
        ours.flat_map(|line| [line, "\n"]).collect()
    };
    let helper = format!(
        "\
# Left by `meshctl systemd-detach {unit}` until {unit} stops.
[Unit]
Description=Network namespace of {unit}
PartOf={unit}
Before={unit}

[Service]
Type=oneshot
ExecStart=/bin/true
{}",
        commands(helper, &["ExecStopPost="])
    );
    let drop_in = format!(
        "\
# Left by `meshctl systemd-detach {unit}` until {unit} stops.
[Service]
{}",
        commands(drop_in, &["ExecStop=", "ExecStopPost="])
    );
    [helper, drop_in]
}

fn path_text(path: &Path) -> Result<&str, UnitError> {
    let text = path.to_str().filter(|text| path.is_absolute() && !text.contains(char::is_control));
    text.ok_or_else(|| UnitError::Path(path.to_owned()))
}

/// A word as ExecStart= takes it (systemd.service(5), "Command lines"; `%` and `$` begin what systemd fills in).
fn quoted(word: &str) -> String {
    let word = word.replace('%', "%%").replace('$', "$$");
    let harmless = |c: char| c.is_ascii_alphanumeric() || "-_=/.:,@+%".contains(c);
    if !word.is_empty() && word.chars().all(harmless) {
        return word;
    }
    let inner: String = word
        .chars()
        .map(|c| match c {
            '"' | '\\' => format!("\\{c}"),
            c if c.is_control() => format!("\\x{:02x}", u32::from(c)),
            c => c.to_string(),
        })
        .collect();
    format!("\"{inner}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(unit: &str, words: &[&str], drains: bool) -> [(PathBuf, String); 2] {
        let words: Vec<_> = words.iter().map(|&word| word.to_owned()).collect();
        let wishes = Wishes { program: Path::new("/usr/bin/meshctl"), socket: None, words: &words, drains };
        unit.parse::<Unit>().unwrap().files(Path::new("/etc/systemd/system"), &wishes).unwrap()
    }

    #[test]
    fn a_service_on_a_network() {
        let [(helper_path, helper), (drop_in_path, drop_in)] = files("redis", &["--network=prod"], false);
        assert_eq!(helper_path, Path::new("/etc/systemd/system/meshd-netns-redis.service"));
        assert!(
            helper.contains("ExecStart=/usr/bin/meshctl systemd-netns up --network=prod redis\n"),
            "{helper}"
        );
        assert_eq!(drop_in_path, Path::new("/etc/systemd/system/redis.service.d/50-meshd.conf"));
        assert_eq!(
            drop_in,
            "\
# Written by `meshctl systemd-attach`; `meshctl systemd-detach redis.service` takes it away.
[Unit]
BindsTo=meshd-netns-redis.service
After=meshd-netns-redis.service

[Service]
NetworkNamespacePath=/run/netns/meshd-redis
BindReadOnlyPaths=/run/meshd-netns/redis/resolv.conf:/etc/resolv.conf
"
        );
    }

    #[test]
    fn one_that_runs_keeps_what_ends_its_namespace() {
        let [(_, helper), (_, drop_in)] = files("web", &["--service=web"], true);
        let [helper, drop_in] = until_stopped(&"web".parse().unwrap(), &helper, &drop_in);
        assert!(helper.contains("PartOf=web.service\nBefore=web.service\n"), "{helper}");
        assert!(
            helper.ends_with("ExecStart=/bin/true\nExecStopPost=/usr/bin/meshctl systemd-netns down web\n"),
            "{helper}"
        );
        assert!(!helper.contains(" up ") && !helper.contains("StopWhenUnneeded"), "{helper}");
        assert!(drop_in.contains("[Service]\nExecStop=-+/usr/bin/meshctl task drain --wait "), "{drop_in}");
        assert!(!drop_in.contains("NetworkNamespacePath") && !drop_in.contains("BindsTo"), "{drop_in}");
    }

    #[test]
    fn a_task_of_a_service_drains_and_comes_anew() {
        let [_, (_, drop_in)] = files("web@a.service", &["--service=web"], true);
        for line in [
            "BindsTo=meshd-netns-web-a.service",
            "ExecStartPre=+/usr/bin/meshctl systemd-netns up --service=web web-a",
            "ExecStop=-+/usr/bin/meshctl task drain --wait /run/netns/meshd-web-a",
        ] {
            assert!(drop_in.lines().any(|have| have == line), "{line} in {drop_in}");
        }
    }

    #[test]
    fn words_stay_words() {
        for (word, text) in [
            ("--network=prod", "--network=prod"),
            ("--name=a b", "\"--name=a b\""),
            ("50%", "50%%"),
            ("$HOME", "\"$$HOME\""),
            ("a\"\\b\n", "\"a\\\"\\\\b\\x0a\""),
            ("", "\"\""),
            ("a;b", "\"a;b\""),
        ] {
            assert_eq!(quoted(word), text);
        }
    }

    #[test]
    fn what_is_no_service_is_told() {
        for (text, told) in [
            ("nginx.socket", "only services"),
            ("getty@.service", "such as getty@1.service"),
            ("a/b", "no name"),
            ("", "no name"),
            (".service", "no name"),
            ("a b", "no name"),
            ("-x", "no name"),
        ] {
            let error = text.parse::<Unit>().unwrap_err().to_string();
            assert!(error.contains(told), "{text}: {error}");
        }
        assert_eq!("nginx".parse::<Unit>(), "nginx.service".parse::<Unit>());
        assert_eq!("org.example.x".parse::<Unit>().unwrap().to_string(), "org.example.x.service");
    }
}
