//! What the daemon says of itself and the cluster.

use std::{fs, os::unix::fs::MetadataExt, path::Path, time::SystemTime};

use mesh_api::v1::MemberState;
use nix::sys::statvfs::statvfs;

use super::{Finding, Told, host};

/// What the daemon's own warnings are found as.
pub const WARNING: &str = "daemon's warning";
/// Free space below which the state is in danger, in bytes.
const LITTLE: u64 = 64 << 20;
/// A certificate renews itself long before that.
const SOON: u64 = 24 * 3600;

/// All of it, of a node that is in a cluster.
pub fn check(told: &Told, findings: &mut Vec<Finding>) {
    let Told { status, view, reach } = told;
    if status.state == "inactive" {
        return;
    }
    if status.state == "locked" {
        let what = "this node's manager is locked";
        findings.push(Finding::failure(
            "cluster",
            what,
            "unlock it with `meshctl unlock` and the unlock key",
        ));
    }
    findings.push(match status.manager_session.starts_with("connected") {
        true => Finding::ok("manager", status.manager_session.as_str()),
        false => Finding::failure(
            "manager",
            format!("{}; nothing can be changed, what runs goes on", status.manager_session),
            format!("see that a manager runs and is reached at 2377/tcp: {}", status.managers.join(", ")),
        ),
    });
    let uplinks: Vec<String> = status
        .data_path
        .iter()
        .flat_map(|path| &path.uplinks)
        .map(|uplink| uplink.interface.clone())
        .collect();
    host::check_settings(&uplinks, findings);
    for feature in status.data_path.iter().flat_map(|path| &path.features) {
        findings.push(Finding::warning("kernel feature", feature.as_str(), "use a kernel that has it"));
    }
    for warning in &status.warnings {
        let (what, cure) = split(warning);
        findings.push(Finding::warning(WARNING, what, cure));
    }
    for member in &status.members {
        let node =
            view.iter().flat_map(|view| view.nodes.values()).find(|n| n.id.to_string() == member.node_id);
        let Some(node) = node.filter(|node| node.id.to_string() != status.node_id) else { continue };
        let check = format!("node {}", node.name);
        findings.push(match member.state() {
            MemberState::Alive => Finding::ok(check, "its daemon answers"),
            // By some way it was reached a moment ago.
            _ if reach.iter().flat_map(|r| &r.nodes).any(|r| r.node_id == member.node_id && !r.version.is_empty()) => {
                Finding::failure(
                    check,
                    "its daemon runs, but gossip between it and this node does not pass",
                    format!("see `ports {}` for the port and the direction", node.name),
                )
            }
            MemberState::Unattended => Finding::failure(
                check,
                "its daemon does not answer, its data path does: tasks there run on, but nothing new reaches it",
                format!("on {}: `systemctl status meshd`, then `systemctl start meshd`", node.name),
            ),
            MemberState::Left => Finding::ok(check, "has left"),
            _ => Finding::failure(
                check,
                format!("neither its daemon nor its data path answers at {}", node.advertise_addr),
                format!(
                    "see that the machine runs and is connected, and `systemctl status meshd` there; if it is gone for good, `meshctl node rm {}`",
                    node.name
                ),
            ),
        });
    }
    let Some(reach) = reach else { return };
    findings.push(certificate(reach.certificate_expires));
    findings.extend(state_dir(Path::new(&reach.state_dir)));
}

/// Warnings of the daemon tell what is wrong, then mostly what to do after a semicolon.
pub fn split(warning: &str) -> (&str, &str) {
    match warning.rsplit_once("; ") {
        Some((what, cure)) => (what, cure),
        None => (warning, "see docs/troubleshooting.md"),
    }
}

fn certificate(expires: u64) -> Finding {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let when = crate::output::time(expires);
    match expires.saturating_sub(now) {
        0 => Finding::failure(
            "certificate",
            format!("expired at {when}: no manager listens to this node"),
            "see that its clock is right; else `meshctl leave --force` and join anew",
        ),
        left if left < SOON => Finding::warning(
            "certificate",
            format!("expires at {when}, and was not renewed in time"),
            "see that a manager is reached, and `journalctl -u meshd` for why it refuses",
        ),
        _ => Finding::ok("certificate", format!("valid until {when}")),
    }
}

fn state_dir(path: &Path) -> Vec<Finding> {
    const NAME: &str = "state folder";
    let mut findings = Vec::new();
    match statvfs(path) {
        Ok(stat) => {
            let free = stat.blocks_available() * stat.fragment_size();
            let full = free < LITTLE || stat.files_available() == 0 && stat.files() > 0;
            findings.push(match full {
                true => Finding::failure(
                    NAME,
                    format!("{} has {} MiB free: state cannot be kept for long", path.display(), free >> 20),
                    "make room on that file system",
                ),
                false => Finding::ok(NAME, format!("{} has {} MiB free", path.display(), free >> 20)),
            });
        }
        Err(error) => findings.push(Finding::unchecked(NAME, format!("{}: {error}", path.display()))),
    }
    if let Ok(found) = fs::metadata(path)
        && found.mode() & 0o077 != 0
    {
        findings.push(Finding::failure(
            NAME,
            format!(
                "{} is open to others (mode {:03o}): keys are in it",
                path.display(),
                found.mode() & 0o777
            ),
            format!("`chmod 700 {}`", path.display()),
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::doctor::Level;

    #[test]
    fn certificates() {
        assert_eq!(certificate(1).level, Level::Failure);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        assert_eq!(certificate(now + 3600).level, Level::Warning);
        assert_eq!(certificate(now + 10 * SOON).level, Level::Ok);
    }

    #[test]
    fn a_folder_that_others_read_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let levels = |mode| {
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
            state_dir(folder.path()).into_iter().filter_map(|f| f.cure).collect::<Vec<_>>()
        };
        assert!(levels(0o755).iter().any(|cure| cure.starts_with("`chmod 700")));
        assert!(!levels(0o700).iter().any(|cure| cure.contains("chmod")));
    }

    #[test]
    fn a_warning_is_split_at_what_to_do() {
        assert_eq!(split("a; b; do c"), ("a; b", "do c"));
        assert_eq!(split("alone").0, "alone");
    }
}
