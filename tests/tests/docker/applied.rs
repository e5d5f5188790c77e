//! A project of Compose whose network and service `meshctl apply --compose` makes of the same file.

use anyhow::{Result, ensure};
use mesh_tests::{Busybox, Docker, NetNs, run, wait};

use super::{SOON, curl, wait_for_tasks};

const FILE: &str = r#"
services:
  web:
    image: IMAGE
    command: [sh, -c, 'hostname > /tmp/index.html; exec httpd -f -p 80 -h /tmp']
    stop_grace_period: 1s
    labels: { mesh.service: shop, mesh.publish: "8080:80" }
    ports: ["9090:80", "127.0.0.1:9091:80"]
    networks: { front: { aliases: [counter] } }
networks:
  front:
    driver: mesh
    driver_opts: { network: shop }
    ipam:
      driver: mesh
      options: { network: shop }
      config: [{ subnet: 10.20.3.0/24 }]
"#;

fn answers(from: &NetNs, url: &str, who: &str) -> Result<()> {
    wait(&format!("an answer at {url}"), SOON, || {
        let told = curl(from, url)?;
        ensure!(told == who, "{told} answers, not {who}");
        Ok(())
    })
}

#[test]
fn a_project_brings_its_network_and_service() -> Result<()> {
    run(1, |cluster| {
        let node = &cluster[0];
        let image = Busybox::make(&cluster.net().prefix().folder())?;
        let engine = Docker::start(node, &image)?;
        engine.write_project("own", &FILE.replace("IMAGE", Busybox::NAME))?;
        let path = engine.project("own").display().to_string();
        node.ctl(&["apply", "--compose", &path])?;
        let again = node.ctl(&["apply", "--compose", &path])?;
        ensure!(again.contains("nothing to change"), "the second time it changes something: {again}");
        engine.compose("own", &["up", "-d"])?;
        wait_for_tasks(node, &["own_web_1"])?;
        let inside = engine.exec("own_web_1", &["ip", "-4", "addr", "show", "mesh0"])?;
        ensure!(inside.contains("inet 10.20.3."), "{inside}");
        let who = engine.exec("own_web_1", &["hostname"])?;
        let (client, own) = (cluster.net().client(), &cluster.net().nodes()[0]);
        let address = node.address();
        answers(client, &format!("http://{address}:8080/"), &who)?;
        answers(client, &format!("http://{address}:9090/"), &who)?;
        answers(own, "http://127.0.0.1:9091/", &who)?;
        let outside = curl(client, &format!("http://{address}:9091/"));
        ensure!(outside.is_err(), "a port of localhost is open outside");
        engine.compose("own", &["down", "--timeout", "1"])?;
        wait_for_tasks(node, &[])
    })
}
