//! Projects of Debian's docker-compose on two nodes.

use anyhow::{Context, Result, ensure};
use mesh_api::v1::{ListTasksRequest, ReservedAddress, local_client::LocalClient};
use mesh_tests::{Busybox, Cluster, Docker, NetNs, Node, output, run, wait};

use super::{ADDRESSED, SOON, bare_engines, curl, kernel, look_up, nothing_is_left, wait_for_tasks};

/// The page whose file is brought up here.
const PAGE: &str = include_str!("../../../docs/docker.md");

/// The page's project with an image that is there, whose containers say which they are, and with a client.
fn file() -> Result<String> {
    let block = PAGE.split("```yaml").nth(1).and_then(|text| text.split("```").next());
    let (_, block) = block.and_then(|text| text.split_once('\n')).context("no yaml in docs/docker.md")?;
    let image = Busybox::NAME;
    let web = format!(
        "    image: {image}
    command: [sh, -c, 'hostname > /tmp/index.html; exec httpd -f -p 80 -h /tmp']
    stop_grace_period: 1s
"
    );
    let client = format!(
        "
  client:
    image: {image}
    command: [sleep, '1000000']
    stop_grace_period: 1s
    networks: [prod]
networks:
"
    );
    let file = block.replace("    image: nginx\n", &web).replace("\nnetworks:\n", &client);
    ensure!(file.contains(&web) && file.contains(&client), "docs/docker.md has another project: {block}");
    Ok(file)
}

/// The same on a network that Docker has.
fn external() -> Result<String> {
    let file = file()?;
    let (parts, _) = file.split_once("\nnetworks:\n").context("no networks")?;
    Ok(format!("{parts}\nnetworks:\n  prod: {{ external: true }}\n"))
}

#[test]
fn projects_of_two_engines() -> Result<()> {
    run(2, |cluster| {
        let engines = bare_engines(cluster)?;
        let (one, two) = (&engines[0], &engines[1]);
        let before = kernel(cluster)?;
        for (engine, project) in [(one, "one"), (two, "two")] {
            engine.write_project(project, &file()?)?;
            engine.compose(project, &["up", "-d"])?;
            // A worker opens no port: it has to know that a manager has.
            cluster.wait_for_view()?;
        }
        wait_for_tasks(&cluster[0], &["one_client_1", "one_web_1", "two_client_1", "two_web_1"])?;

        // The names of containers, of the part of the file, which is the service's too, and the one that the file gives.
        let mut both = vec![address(one, "one_web_1")?, address(two, "two_web_1")?];
        wait_for_name(two, "two_client_1", "one_web_1", &both[..1])?;
        wait_for_name(one, "one_client_1", "two_web_1", &both[1..])?;
        both.sort();
        wait_for_name(two, "two_client_1", "front", &both)?;
        wait_for_name(two, "two_client_1", "tasks.web", &both)?;
        let vip = look_up(two, "two_client_1", "web")?;
        ensure!(vip.len() == 1 && !both.contains(&vip[0]), "web is {vip:?}, its containers are {both:?}");
        let mut names = vec![hostname(one, "one_web_1")?, hostname(two, "two_web_1")?];
        let inside = two.namespace("two_client_1")?;
        wait("the service by its address", SOON, || {
            let mut curl = NetNs::command_at(&inside, "curl")?;
            let who = output(curl.args(["-sS", "--max-time", "3", &format!("http://{}/", vip[0])]))?;
            ensure!(names.iter().any(|name| name == who.trim()), "{who} answers");
            Ok(())
        })?;
        wait_for_answers(cluster, &names)?;

        one.compose("one", &["up", "-d", "--scale", "web=2"])?;
        let three = ["one_client_1", "one_web_1", "one_web_2", "two_client_1", "two_web_1"];
        wait_for_tasks(&cluster[1], &three)?;
        names.push(hostname(one, "one_web_2")?);
        wait_for_answers(cluster, &names)?;
        one.compose("one", &["restart", "--timeout", "1", "web"])?;
        wait_for_tasks(&cluster[1], &three)?;
        wait_for_answers(cluster, &names)?;

        one.compose("one", &["down", "--timeout", "1"])?;
        wait_for_tasks(&cluster[1], &["two_client_1", "two_web_1"])?;
        wait_for_answers(cluster, &names[1..2])?;
        two.compose("two", &["down", "--timeout", "1"])?;
        wait_for_tasks(&cluster[0], &[])?;

        // A network that Docker knows already, and that a project leaves as it is.
        one.run(&[&["network", "create", "--driver", "mesh"], ADDRESSED, &["prod"]].concat())?;
        one.write_project("external", &external()?)?;
        one.compose("external", &["up", "-d"])?;
        wait_for_tasks(&cluster[1], &["external_client_1", "external_web_1"])?;
        let only = [address(one, "external_web_1")?];
        wait_for_name(one, "external_client_1", "front", &only)?;
        wait_for_answers(cluster, &[hostname(one, "external_web_1")?])?;
        one.compose("external", &["down", "--timeout", "1"])?;
        wait_for_tasks(&cluster[1], &[])?;
        one.run(&["network", "rm", "prod"])?;

        cluster[0].ctl(&["unpublish", "8080", "web"])?;
        nothing_is_left(cluster, &before)?;
        for node in cluster.nodes() {
            wait_for_tasks(node, &[])?;
            wait("no address to be kept", SOON, || {
                let kept = reserved(node)?;
                ensure!(kept.is_empty(), "on {}: {kept:?}", node.name());
                Ok(())
            })?;
        }
        Ok(())
    })
}

/// What Docker shows as a container's address.
fn address(engine: &Docker, container: &str) -> Result<String> {
    let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    engine.run(&["inspect", "--format", format, container])
}

fn hostname(engine: &Docker, container: &str) -> Result<String> {
    engine.exec(container, &["hostname"])
}

fn wait_for_name(engine: &Docker, container: &str, name: &str, addresses: &[String]) -> Result<()> {
    wait("a name", SOON, || {
        let found = look_up(engine, container, name)?;
        ensure!(found == addresses, "{name} is {found:?}, not {addresses:?}");
        Ok(())
    })
}

/// At the published port of each node each of these containers answers at last, and no other.
fn wait_for_answers(cluster: &Cluster, names: &[String]) -> Result<()> {
    for node in cluster.nodes() {
        let mut missing = names.to_vec();
        wait("every container to answer", SOON, || {
            let who = curl(cluster.net().client(), &format!("http://{}:8080/", node.address()))?;
            ensure!(names.contains(&who), "{who} answers, none of {names:?}");
            missing.retain(|name| *name != who);
            ensure!(missing.is_empty(), "{missing:?} have not answered at {}", node.name());
            Ok(())
        })?;
    }
    Ok(())
}

/// What the node keeps for somebody.
pub(super) fn reserved(node: &Node) -> Result<Vec<ReservedAddress>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let channel =
            mesh_api::transport::unix_connect(node.socket()).await.context("the daemon's socket")?;
        let listed = LocalClient::new(channel).list_tasks(ListTasksRequest {}).await?;
        Ok(listed.into_inner().reserved)
    })
}
