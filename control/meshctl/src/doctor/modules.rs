//! Parts of the kernel that may be modules: whether each is built in, loaded, or will be loaded when it is asked for.

use std::{fs, path::Path};

use super::{Finding, devices::output};

const NAME: &str = "modules";
/// Where rules for loading stand (modprobe.d(5)).
const RULES: [&str; 4] = ["/etc/modprobe.d", "/run/modprobe.d", "/usr/lib/modprobe.d", "/lib/modprobe.d"];

/// A part of the kernel, by its module and the option it is built by.
#[derive(Debug, Clone, Copy)]
struct Part {
    module: &'static str,
    option: &'static str,
    /// What is missing without it.
    needed_for: &'static str,
}

const PARTS: [Part; 8] = [
    Part { module: "veth", option: "CONFIG_VETH", needed_for: "tasks' interfaces" },
    Part { module: "vxlan", option: "CONFIG_VXLAN", needed_for: "traffic between nodes" },
    Part {
        module: "sch_ingress",
        option: "CONFIG_NET_SCH_INGRESS",
        needed_for: "programs on tasks' interfaces",
    },
    Part { module: "cls_bpf", option: "CONFIG_NET_CLS_BPF", needed_for: "programs on tasks' interfaces" },
    Part { module: "nf_tables", option: "CONFIG_NF_TABLES", needed_for: "tasks' way out" },
    Part { module: "nft_chain_nat", option: "CONFIG_NFT_NAT", needed_for: "tasks' way out" },
    Part { module: "nft_masq", option: "CONFIG_NFT_MASQ", needed_for: "tasks' way out" },
    Part { module: "nft_ct", option: "CONFIG_NFT_CT", needed_for: "tasks' way out" },
];

/// What the running kernel and its files say.
#[derive(Debug, Default)]
struct Kernel {
    release: String,
    /// Modules that are loaded, and built-in parts that have settings.
    present: Vec<String>,
    /// `modules.builtin` and `modules.dep` of the running kernel (depmod(8)).
    builtin: String,
    loadable: Option<String>,
    /// The options that it was built with, if they are told.
    options: Option<String>,
    /// Every file with rules for loading, and what is in it.
    rules: Vec<(String, String)>,
    /// Nothing can be loaded any more (kernel.modules_disabled).
    closed: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    There,
    /// Will be loaded when it is asked for.
    Loadable,
    /// What was seen, and what helps.
    Missing(String, String),
    Unknown,
}

/// Looks at the running kernel.
pub fn check(findings: &mut Vec<Finding>) {
    findings.extend(report(&Kernel::running()));
}

fn report(kernel: &Kernel) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut unknown = Vec::new();
    for part in PARTS {
        match kernel.state(part) {
            State::There | State::Loadable => {}
            State::Unknown => unknown.push(part.module),
            State::Missing(why, cure) => findings.push(Finding::failure(
                format!("module {}", part.module),
                format!("{why}; {} need it", part.needed_for),
                cure,
            )),
        }
    }
    if !unknown.is_empty() {
        let what = format!(
            "the kernel does not tell whether it has {}: neither /proc/config.gz nor /lib/modules/{} is there",
            unknown.join(", "),
            kernel.release
        );
        findings.push(Finding::unchecked(NAME, what));
    }
    if findings.is_empty() {
        let names: Vec<_> = PARTS.iter().map(|part| part.module).collect();
        findings.push(Finding::ok(NAME, format!("{} are built in, or can be loaded", names.join(", "))));
    }
    findings
}

impl Kernel {
    fn running() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let release = read("/proc/sys/kernel/osrelease").trim().to_owned();
        let folder = format!("/lib/modules/{release}");
        let options = output("gzip", &["-dc", "/proc/config.gz"]);
        Self {
            present: files("/sys/module"),
            builtin: read(&format!("{folder}/modules.builtin")),
            loadable: fs::read_to_string(format!("{folder}/modules.dep")).ok(),
            options: options.or_else(|| fs::read_to_string(format!("/boot/config-{release}")).ok()),
            rules: RULES.iter().flat_map(|folder| rules(folder)).collect(),
            closed: read("/proc/sys/kernel/modules_disabled").trim() == "1",
            release,
        }
    }

    fn state(&self, part: Part) -> State {
        let Part { module, option, .. } = part;
        if self.present.iter().any(|name| name == module) || listed(&self.builtin, module) {
            return State::There;
        }
        if self.option(option) == Some("y") {
            return State::There;
        }
        if self.loadable.as_deref().is_some_and(|list| listed(list, module)) {
            return self.hindrance(module).unwrap_or(State::Loadable);
        }
        match (self.option(option), &self.loadable) {
            (Some("n"), _) => State::Missing(
                format!("the kernel {} was built without {module} ({option})", self.release),
                "boot a kernel that has it, as distributions' own have".to_owned(),
            ),
            (Some(_), None) => State::Missing(
                format!("{module} is a module, and /lib/modules/{} is not there", self.release),
                "reboot if a newer kernel was installed; else install the modules of the running one"
                    .to_owned(),
            ),
            (_, Some(_)) => State::Missing(
                format!("{module} is neither built in nor among the modules of {}", self.release),
                format!(
                    "install the kernel's other modules (Ubuntu: `apt-get install linux-modules-extra-{}`), or a kernel that has it",
                    self.release
                ),
            ),
            (None, None) => State::Unknown,
        }
    }

    /// `y`, `m` or `n`; none if the kernel does not tell.
    fn option(&self, option: &str) -> Option<&str> {
        let set =
            self.options.as_deref()?.lines().find_map(|line| line.strip_prefix(option)?.strip_prefix('='));
        Some(set.unwrap_or("n"))
    }

    /// What keeps a module that is there from being loaded.
    fn hindrance(&self, module: &str) -> Option<State> {
        if self.closed {
            return Some(State::Missing(
                format!("{module} is not loaded, and kernel.modules_disabled is 1"),
                format!(
                    "have it loaded at boot: `echo {module} >> /etc/modules-load.d/meshd.conf`, and reboot"
                ),
            ));
        }
        let forbids = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                ["blacklist", name] => name.replace('-', "_") == module,
                ["install", name, program, ..] => {
                    name.replace('-', "_") == module
                        && (program.ends_with("/false") || program.ends_with("/true"))
                }
                _ => false,
            }
        };
        let (file, line) = self
            .rules
            .iter()
            .find_map(|(file, text)| Some((file, text.lines().find(|line| forbids(line))?)))?;
        Some(State::Missing(
            format!("{module} is not loaded, and `{}` in {file} forbids it", line.trim()),
            format!("take that line away, or load it yourself: `modprobe {module}`"),
        ))
    }
}

/// Whether a list of modules has one, by lines as `kernel/drivers/net/veth.ko.xz: ...`.
fn listed(list: &str, module: &str) -> bool {
    let files = list.lines().filter_map(|line| line.split(':').next()?.rsplit('/').next());
    files.filter_map(|file| file.split(".ko").next()).any(|name| name.replace('-', "_") == module)
}

fn files(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn rules(folder: &str) -> Vec<(String, String)> {
    let names = files(folder).into_iter().filter(|name| name.ends_with(".conf"));
    let paths = names.map(|name| format!("{folder}/{name}"));
    paths.filter_map(|path| Some((path.clone(), fs::read_to_string(Path::new(&path)).ok()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const VXLAN: Part = PARTS[1];

    fn kernel() -> Kernel {
        Kernel { release: "6.1.0-18-amd64".to_owned(), ..Kernel::default() }
    }

    fn missing(kernel: &Kernel) -> (String, String) {
        match kernel.state(VXLAN) {
            State::Missing(why, cure) => (why, cure),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_part_is_there_when_loaded_or_built_in() {
        assert_eq!(Kernel { present: vec!["vxlan".to_owned()], ..kernel() }.state(VXLAN), State::There);
        let builtin = "kernel/net/ipv4/tunnel4.ko\nkernel/drivers/net/vxlan/vxlan.ko\n".to_owned();
        assert_eq!(Kernel { builtin, ..kernel() }.state(VXLAN), State::There);
        let options = Some("CONFIG_VXLAN_X=m\nCONFIG_VXLAN=y\n".to_owned());
        assert_eq!(Kernel { options, ..kernel() }.state(VXLAN), State::There);
        assert_eq!(kernel().state(VXLAN), State::Unknown);
    }

    #[test]
    fn a_module_is_loaded_unless_something_forbids_it() {
        let loadable =
            || Some("kernel/drivers/net/vxlan/vxlan.ko.xz: kernel/net/ipv4/udp_tunnel.ko.xz\n".to_owned());
        assert_eq!(Kernel { loadable: loadable(), ..kernel() }.state(VXLAN), State::Loadable);
        let closed = Kernel { loadable: loadable(), closed: true, ..kernel() };
        assert!(missing(&closed).1.contains("modules-load.d"));
        for (line, forbidden) in [
            ("blacklist vxlan", true),
            ("install vxlan /bin/false", true),
            ("# blacklist vxlan", false),
            ("install vxlan /sbin/modprobe --ignore-install vxlan", false),
            ("blacklist veth", false),
        ] {
            let rules = vec![("/etc/modprobe.d/own.conf".to_owned(), format!("options x y=1\n{line}\n"))];
            let kernel = Kernel { loadable: loadable(), rules, ..kernel() };
            assert_eq!(kernel.state(VXLAN) != State::Loadable, forbidden, "{line}");
        }
    }

    #[test]
    fn what_is_missing_is_told_with_its_reason() {
        let options = |text: &str| Some(text.to_owned());
        let without = Kernel { options: options("# CONFIG_VXLAN is not set\n"), ..kernel() };
        assert!(missing(&without).0.contains("was built without vxlan (CONFIG_VXLAN)"));
        let upgraded = Kernel { options: options("CONFIG_VXLAN=m\n"), ..kernel() };
        assert!(missing(&upgraded).1.starts_with("reboot"));
        let cut_down = Kernel { loadable: options("kernel/net/x.ko: \n"), ..kernel() };
        assert!(missing(&cut_down).1.contains("linux-modules-extra-6.1.0-18-amd64"));
    }
}
