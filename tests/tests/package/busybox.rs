//! The archive on a machine that has busybox and nothing else: no systemd, no nft, no GNU tools.

use std::{fs, path::Path};

use mesh_tests::Busybox;

use super::*;

#[test]
fn a_machine_with_busybox_alone_is_installed_upgraded_under_traffic_and_left() -> Result<()> {
    let packages = Packages::make([])?;
    run(2, |cluster| {
        let network = ["network", "create", "--internal", "--attachable", "prod"];
        cluster[0].ctl(&network)?;
        cluster.wait_for_view()?;
        let node = &cluster[1];
        node.ctl(&["leave"])?;
        node.stop()?;
        let root = root(&cluster.net().prefix().folder())?;
        let machine = Machine::boot_without_systemd(&root, node)?;
        machine.bring(packages.tarball(), "/tmp/meshd.tar.gz")?;
        machine.run(&["mkdir", "/tmp/meshd"])?;
        machine.run(&["tar", "-C", "/tmp/meshd", "--strip-components=1", "-xzf", "/tmp/meshd.tar.gz"])?;
        let install = |words: &[&str]| machine.run(&[&["/tmp/meshd/install.sh"], words].concat());
        let refused =
            |words: &[&str]| install(words).map_or_else(|error| format!("{error:#}"), |_| String::new());

        machine.run(&["sh", "-c", "cp /tmp/meshd/meshd.toml /tmp/kept && echo >> /tmp/meshd/meshd.toml"])?;
        let said = refused(&[]);
        ensure!(said.contains("meshd.toml: FAILED") && !said.contains(": OK"), "{said}");
        machine.run(&["mv", "/tmp/kept", "/tmp/meshd/meshd.toml"])?;
        let said = install(&[])?;
        ensure!(said.contains("/usr/local/sbin/meshd started at boot"), "{said}");
        machine.run(&["test", "!", "-e", "/etc/systemd"]).context("a unit for nobody")?;

        let start = || -> Result<_> {
            let daemon = machine.start("/usr/local/sbin/meshd")?;
            wait("the daemon to answer", START, || machine.run(&["meshctl", "status"]).map(drop))?;
            Ok(daemon)
        };
        let mut daemon = start()?;
        cluster.join(1)?;
        cluster.wait_for_members(2)?;
        let task = |name| TaskSpec { name, network: "prod", ..TaskSpec::default() };
        let (there, here) = (cluster[0].run_idle(&task("there"))?, node.run_idle(&task("here"))?);
        // By the programs that are installed: a task of its own, a name, a packet to another node.
        wait("a task there", SOON, || {
            machine.run(&["meshctl", "run", "--network", "prod", "--", "ping", "-c", "1", "-W", "1", "there"])
        })?;

        let pings = Pings::start(&there, here.address()?)?;
        let before = machine.run(&["ls", "-i", "/usr/local/sbin/meshd"])?;
        install(&[]).context("installing once more, as an upgrade")?;
        ensure!(
            machine.run(&["ls", "-i", "/usr/local/sbin/meshd"])? != before,
            "the program was not replaced"
        );
        daemon.stop()?;
        let mut daemon = start()?;
        cluster.wait_for_members(2)?;
        let lost = pings.lost()?;
        ensure!(lost == 0, "{lost} packets were lost by the upgrade");

        let said = refused(&["--uninstall"]);
        ensure!(said.contains("meshd runs: stop it first"), "{said}");
        drop((there, here));
        daemon.stop()?;
        install(&["--uninstall", "--purge"])?;
        ensure!(node.pins().is_empty(), "pins are left: {:?}", node.pins());
        let left = machine.run(&["find", "/", "-xdev", "-name", "*mesh*", "!", "-path", "/tmp/*"])?;
        ensure!(left.trim().is_empty(), "left: {left}");
        ensure!(!machine.run(&["cat", "/etc/group"])?.contains("mesh"), "the group mesh is left");
        Ok(())
    })
}

/// A root of busybox, with the libraries of programs that are not static.
fn root(folder: &Path) -> Result<std::path::PathBuf> {
    let root = Busybox::make(folder)?.root();
    fs::create_dir_all(root.join("usr/local/sbin")).context("a folder for programs")?;
    let meshd = mesh_tests::Binaries::find()?.meshd;
    // It fails where there is nothing to tell of: the program is static.
    let libraries = mesh_tests::output(std::process::Command::new("ldd").arg(meshd)).unwrap_or_default();
    for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
        let target = root.join(library.trim_start_matches('/'));
        fs::create_dir_all(target.parent().unwrap_or(&root)).with_context(|| library.to_owned())?;
        fs::copy(library, &target).with_context(|| library.to_owned())?;
    }
    Ok(root)
}
