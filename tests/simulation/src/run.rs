//! One seed from beginning to end.

use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use mesh_raft::{RaftNode, simulation};
use mesh_store::NEWEST_FORMAT;
use mesh_types::{NodeId, Role};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{
    agents::{Agent, agent},
    clients, commands,
    invariants::{convergence, linearizable, lost_writes},
    nemesis::Nemesis,
    scenario::Scenario,
    trace::Trace,
    world::{World, manager},
};

/// How long the cluster may take to be well when the trouble is over.
const RECOVERY: Duration = Duration::from_secs(120);

/// Simulates a seed; what was done, in a line, or what did not hold.
pub async fn run(seed: u64, trace: Trace) -> Result<String> {
    let scenario = Scenario::of(seed);
    trace.tell(|| format!("{scenario:?}"));
    let world = World::new(scenario, trace);
    form(&world).await?;
    let stop = CancellationToken::new();
    let agents: Vec<Agent> =
        (1..=world.scenario().agents).map(|number| Agent::start(&world, number, stop.clone())).collect();
    let clients: Vec<_> =
        (1..=world.scenario().clients).map(|number| clients::start(&world, number, stop.clone())).collect();
    Nemesis::new(&world).run().await;
    stop.cancel();
    for client in clients {
        client.await?;
    }
    let ended = end(&world, &agents).await;
    world.hold(ended);
    let broken = std::mem::take(&mut world.notes().broken);
    if let Some(first) = broken.into_iter().next() {
        return Err(first);
    }
    let undecided = linearizable::check(&world.history().operations())?;
    let notes = world.notes();
    Ok(format!(
        "{} managers, {} terms, {} states, {} operations, {} marks, {} addresses{}",
        world.scenario().managers,
        notes.leaders.count(),
        notes.states.count(),
        world.history().operations().len(),
        notes.marks.count(),
        notes.in_use.count(),
        if undecided > 0 { format!(", {undecided} keys undecided") } else { String::new() },
    ))
}

/// Makes the cluster, while all is well.
async fn form(world: &World) -> Result<()> {
    for id in world.machines() {
        world.start(id).await?;
    }
    let first = world.node(manager(1)).ok_or_else(|| anyhow!("the first manager is down"))?;
    first.initialize().await?;
    first.propose(commands::init(manager(1))?).await?;
    for number in 2..=world.scenario().managers {
        let id = manager(number);
        first.propose(commands::add_node(id, number, Role::Manager)?).await?;
    }
    let all = world.machines();
    world.wait("that all managers vote", RECOVERY, || vote(&first, &all)).await?;
    for number in 1..=world.scenario().agents {
        let id = agent(number);
        first.propose(commands::add_node(id, 100 + number, Role::Worker)?).await?;
    }
    first.propose(commands::network()?).await?;
    Ok(())
}

/// Whether all of them vote, and nobody else is left, as a manager knows.
pub fn vote(manager: &RaftNode, all: &[NodeId]) -> bool {
    let members = manager.managers();
    members.len() == all.len() && members.iter().all(|member| member.voter && all.contains(&member.node))
}

/// Everything comes to rest, and everybody has the same.
async fn end(world: &World, agents: &[Agent]) -> Result<()> {
    let marks = world.notes().marks.so_far();
    let last = async {
        loop {
            for node in world.running() {
                let done = node.propose(commands::mark(manager(1), "last")).await;
                match done {
                    Ok(_) => return node.state().version(),
                    Err(error) => world.tell(|| format!("{}: {error}", node.node())),
                }
            }
            sleep(Duration::from_millis(100)).await;
        }
    };
    let version = tokio::time::timeout(RECOVERY, last).await;
    let version =
        version.map_err(|_| anyhow!("no change is possible within {RECOVERY:?} of the trouble's end"))?;
    let same = || {
        let all = world.running();
        let version = all.iter().map(|node| node.state().version()).max().unwrap_or(version);
        let managers =
            all.len() == world.machines().len() && all.iter().all(|node| node.state().version() == version);
        let state = all.first().map(RaftNode::state);
        let agreed = world.scenario().older == 0 || all.iter().all(|n| n.state().format() == NEWEST_FORMAT);
        managers
            && agreed
            && state.is_some_and(|state| {
                agents.iter().all(|a| convergence::check(&state, a.id, &a.seen()).is_ok())
            })
    };
    let waited = world.wait("that all managers and agents have the same", RECOVERY, same).await;
    let nodes = world.running();
    for node in &nodes {
        let members = node.managers().into_iter().map(|member| (member.node.as_u128(), member.voter));
        let (members, version) = (members.collect::<Vec<_>>(), node.state().version());
        world.tell(|| {
            format!("{} at version {version}: {:?}, {members:?}", node.node(), simulation::now(node))
        });
    }
    for agent in agents {
        let seen = agent.seen().view.map(|view| view.version);
        world.tell(|| format!("agent {} at version {seen:?}", agent.id));
    }
    waited?;
    ensure!(nodes.len() == world.machines().len(), "a manager is down at the end");
    for node in &nodes {
        lost_writes::check(&marks, &node.state(), manager(1), &format!("{}, at the end,", node.node()))?;
        ensure!(
            node.state().encode() == nodes[0].state().encode(),
            "states differ at the end: {}",
            node.node()
        );
    }
    for agent in agents {
        convergence::check(&nodes[0].state(), agent.id, &agent.seen())?;
    }
    Ok(())
}
