//! What passes at all nodes, as they report it to the managers while somebody looks.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use mesh_api::v1::{
    Endpoint, GetViewRequest, GetViewResponse, ListTasksRequest, TaskTraffic, TrafficReport,
    WatchTrafficRequest,
};
use serde::Serialize;
use tokio::{
    task::AbortHandle,
    time::{Instant, sleep},
};

use super::{
    rates::{Rate, Sort},
    screen::{drops, size},
};
use crate::{
    context::Context,
    daemon::{Daemon, answer, failed},
    live::{Next, Screen, fit},
    output::{self, Page, Table, plain},
};

/// Nodes report every two seconds; after so long each has told twice.
const TWICE: Duration = Duration::from_millis(5500);

/// How all nodes do, for programs.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Report {
    pub nodes: Vec<Node>,
    pub services: Vec<Service>,
    /// Packets dropped in a second on all nodes, by reason; those alone that there were.
    pub drops: BTreeMap<String, f64>,
}

/// A node. What it does is `null` while it does not report.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Node {
    pub name: String,
    /// As its managers see it.
    pub status: String,
    pub tasks: u64,
    pub rate: Option<Rate>,
}

/// A service, by the clients that enter at any node.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Service {
    pub name: String,
    pub tasks: u64,
    /// Both ways, in a second.
    pub bytes: f64,
    /// Packets in a second for which there was no task.
    pub drops: f64,
}

/// What each node said last, and before that.
type Told = Arc<Mutex<BTreeMap<String, (Option<TrafficReport>, TrafficReport)>>>;

/// Follows the reports until it is dropped.
struct Reports {
    told: Told,
    trouble: Arc<Mutex<Option<anyhow::Error>>>,
    following: AbortHandle,
}

impl Drop for Reports {
    fn drop(&mut self) {
        self.following.abort();
    }
}

impl Reports {
    async fn follow(daemon: &Daemon) -> Result<Self> {
        let request = WatchTrafficRequest { all_managers: true };
        let asked = answer(daemon.control().watch_traffic(request)).await;
        let mut stream = asked.context("only managers know of all nodes")?;
        let (told, trouble) = (Told::default(), Arc::<Mutex<_>>::default());
        let (tell, fail) = (told.clone(), trouble.clone());
        let following = tokio::spawn(async move {
            loop {
                match stream.message().await {
                    Ok(Some(report)) => {
                        let mut told = tell.lock().unwrap_or_else(PoisonError::into_inner);
                        let before = told.remove(&report.node_id).map(|(_, now)| now);
                        let before = before.filter(|before| before.made_millis < report.made_millis);
                        told.insert(report.node_id.clone(), (before, report));
                    }
                    ended => {
                        let error = match ended {
                            Err(status) => anyhow::Error::from(failed(&status)),
                            _ => anyhow::anyhow!("the manager stops"),
                        };
                        *fail.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                        return;
                    }
                }
            }
        });
        Ok(Self { told, trouble, following: following.abort_handle() })
    }

    async fn look(&self, daemon: &Daemon) -> Result<Report> {
        const WHAT: &str = "cannot look at the cluster";
        if let Some(error) = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(error.context(WHAT));
        }
        let view = answer(daemon.local().get_view(GetViewRequest {})).await.context(WHAT)?;
        let tasks = answer(daemon.local().list_tasks(ListTasksRequest {})).await.context(WHAT)?;
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Report::new(&view, &tasks.endpoints, &told))
    }
}

/// Looks until q or Ctrl-C; once, where nobody watches.
pub async fn run(interval: Duration, sort: Sort, context: &Context) -> Result<()> {
    let daemon = context.daemon().await?;
    let reports = Reports::follow(&daemon).await?;
    if context.is_for_programs() || !output::is_terminal() {
        sleep(interval.max(TWICE)).await;
        let mut report = reports.look(&daemon).await?;
        report.sort(sort);
        return context.show(&report, page);
    }
    let mut screen = Screen::begin()?;
    let (mut view, mut sort) = (View::default(), sort);
    let mut report = reports.look(&daemon).await?;
    let mut next = Instant::now() + interval;
    loop {
        report.sort(sort);
        screen.show(lines(&report, view, sort, screen.size()))?;
        match screen.next(next).await {
            Next::Quit => return Ok(()),
            Next::Key(b's' | b'S') => sort = sort.next(),
            Next::Key(b'\t') => view = view.next(),
            Next::Key(_) | Next::Resized => {}
            Next::Look => {
                next = Instant::now() + interval;
                report = reports.look(&daemon).await?;
            }
        }
    }
}

impl Report {
    fn new(
        view: &GetViewResponse,
        endpoints: &[Endpoint],
        told: &BTreeMap<String, (Option<TrafficReport>, TrafficReport)>,
    ) -> Self {
        let status = |id: &str| {
            let known = view.statuses.iter().find(|status| status.node_id == id);
            known.map_or("unknown", |status| status.status.as_str()).to_owned()
        };
        let count = |is: &dyn Fn(&Endpoint) -> bool| {
            let tasks = endpoints.iter().filter(|endpoint| is(endpoint)).map(|endpoint| &endpoint.task_id);
            tasks.collect::<BTreeSet<_>>().len() as u64
        };
        let all = view.view.iter();
        let nodes = all.clone().flat_map(|view| &view.nodes).map(|node| Node {
            name: node.name.clone(),
            status: status(&node.id),
            tasks: count(&|endpoint| endpoint.node_id == node.id),
            rate: told.get(&node.id).and_then(|(before, now)| Some(node_rate(before.as_ref()?, now))),
        });
        let mut bytes: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
        let mut reasons: BTreeMap<String, f64> = BTreeMap::new();
        for (before, now) in told.values().filter_map(|(before, now)| Some((before.as_ref()?, now))) {
            let seconds = seconds(before, now);
            for service in &now.services {
                let known = before.services.iter().find(|known| known.service_id == service.service_id);
                let (was, lost) = known.map_or((0, 0), |known| (known.bytes, known.drops));
                let (sum, drops) = bytes.entry(&service.service_id).or_default();
                *sum += more(was, service.bytes) / seconds;
                *drops += more(lost, service.drops) / seconds;
            }
            for (reason, count) in &now.drops {
                let more = more(before.drops.get(reason).copied().unwrap_or_default(), *count);
                if more > 0.0 {
                    *reasons.entry(reason.clone()).or_default() += more / seconds;
                }
            }
        }
        let services = all.flat_map(|view| &view.services).map(|service| {
            let (bytes, drops) = bytes.get(service.id.as_str()).copied().unwrap_or_default();
            let tasks = count(&|endpoint| endpoint.service_id == service.id);
            Service { name: service.name.clone(), tasks, bytes, drops }
        });
        Self { nodes: nodes.collect(), services: services.collect(), drops: reasons }
    }

    fn sort(&mut self, sort: Sort) {
        self.nodes.sort_by(|a, b| a.name.cmp(&b.name));
        self.services.sort_by(|a, b| a.name.cmp(&b.name));
        let of = |node: &Node| {
            let rate = node.rate.unwrap_or_default();
            match sort {
                Sort::Traffic => rate.bytes_in + rate.bytes_out,
                Sort::Flows | Sort::New => rate.new_flows,
                Sort::Drops => rate.drops,
                Sort::Name => 0.0,
            }
        };
        self.nodes.sort_by(|a, b| of(b).total_cmp(&of(a)));
        let of = |service: &Service| match sort {
            Sort::Drops => service.drops,
            Sort::Name => 0.0,
            Sort::Traffic | Sort::Flows | Sort::New => service.bytes,
        };
        self.services.sort_by(|a, b| of(b).total_cmp(&of(a)));
    }
}

fn seconds(before: &TrafficReport, now: &TrafficReport) -> f64 {
    now.made_millis.saturating_sub(before.made_millis).max(1) as f64 / 1000.0
}

/// What began anew in between counts from there.
fn more(before: u64, now: u64) -> f64 {
    (if now >= before { now - before } else { now }) as f64
}

fn node_rate(before: &TrafficReport, now: &TrafficReport) -> Rate {
    let seconds = seconds(before, now);
    let mut rate = Rate::default();
    for task in &now.tasks {
        let same =
            |known: &&TaskTraffic| (&known.task_id, &known.network_id) == (&task.task_id, &task.network_id);
        let known = before.tasks.iter().find(same).cloned().unwrap_or_default();
        rate.bytes_in += more(known.bytes_in, task.bytes_in) / seconds;
        rate.bytes_out += more(known.bytes_out, task.bytes_out) / seconds;
        rate.packets_in += more(known.packets_in, task.packets_in) / seconds;
        rate.packets_out += more(known.packets_out, task.packets_out) / seconds;
        rate.new_flows += more(known.new_flows, task.new_flows) / seconds;
    }
    // All reasons, those too that are laid to no task.
    let known = |reason: &String| before.drops.get(reason).copied().unwrap_or_default();
    rate.drops = now.drops.iter().map(|(reason, count)| more(known(reason), *count) / seconds).sum();
    rate
}

/// What is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum View {
    #[default]
    Nodes,
    Services,
    Drops,
}

impl View {
    /// The next one, after the last the first.
    fn next(self) -> Self {
        match self {
            Self::Nodes => Self::Services,
            Self::Services => Self::Drops,
            Self::Drops => Self::Nodes,
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Nodes => "nodes",
            Self::Services => "services",
            Self::Drops => "drops",
        }
    }
}

fn lines(report: &Report, view: View, sort: Sort, terminal: (usize, usize)) -> Vec<String> {
    let silent = report.nodes.iter().filter(|node| node.rate.is_none()).count();
    let total: f64 =
        report.nodes.iter().filter_map(|node| node.rate).map(|rate| rate.bytes_in + rate.bytes_out).sum();
    let by = if view == View::Drops { String::new() } else { format!(" by {}", sort.as_str()) };
    let unheard = if silent > 0 { format!(", {silent} not heard of yet") } else { String::new() };
    let mut lines = vec![
        format!("meshctl top: {} nodes{unheard}", report.nodes.len()),
        format!(
            "{}B/s of their tasks, {} services, {} drops/s",
            size(total),
            report.services.len(),
            size(report.drops.values().sum())
        ),
        format!("{}{by}   [q] quit  [s] sort  [tab] next list", view.title()),
        String::new(),
    ];
    lines.extend(table(report, view).render_within(Some(terminal.0)).lines().map(str::to_owned));
    fit(lines.iter().map(|line| plain(line)).collect(), terminal)
}

fn table(report: &Report, view: View) -> Table {
    match view {
        View::Nodes => {
            let mut table = Table::new(&["NODE", "STATUS", "TASKS", "NEW/S", "IN B/S", "OUT B/S", "DROPS/S"])
                .optional(&["DROPS/S", "NEW/S", "TASKS"]);
            for node in &report.nodes {
                let rate = |of: fn(&Rate) -> f64| node.rate.as_ref().map_or("-".to_owned(), |r| size(of(r)));
                table.row([
                    node.name.clone(),
                    node.status.clone(),
                    node.tasks.to_string(),
                    rate(|rate| rate.new_flows),
                    rate(|rate| rate.bytes_in),
                    rate(|rate| rate.bytes_out),
                    rate(|rate| rate.drops),
                ]);
            }
            table
        }
        View::Services => {
            let mut table = Table::new(&["SERVICE", "TASKS", "B/S", "DROPS/S"]).optional(&["DROPS/S"]);
            for service in &report.services {
                let Service { name, tasks, bytes, drops } = service;
                table.row([name.clone(), tasks.to_string(), size(*bytes), size(*drops)]);
            }
            table
        }
        View::Drops => drops(&report.drops),
    }
}

fn page(report: &Report) -> String {
    let mut page = Page::new();
    let all = [("Nodes", View::Nodes), ("Services", View::Services), ("Drops", View::Drops)];
    for (heading, view) in all {
        page.section(heading, table(report, view));
    }
    page.render()
}

#[cfg(test)]
mod tests {
    use mesh_api::v1::{self, ServiceTraffic};

    use super::*;

    fn report(node: &str, millis: u64, bytes: u64) -> TrafficReport {
        TrafficReport {
            node_id: node.to_owned(),
            made_millis: millis,
            tasks: vec![TaskTraffic { task_id: "t".to_owned(), bytes_in: bytes, ..TaskTraffic::default() }],
            services: vec![ServiceTraffic { service_id: "s".to_owned(), bytes, drops: 0 }],
            drops: [("no-backend".to_owned(), bytes / 1000)].into(),
            ..TrafficReport::default()
        }
    }

    fn view() -> GetViewResponse {
        let node =
            |name: &str| v1::Node { id: name.to_owned(), name: name.to_owned(), ..v1::Node::default() };
        let service =
            v1::Service { id: "s".to_owned(), name: "web\u{1b}[2J".to_owned(), ..v1::Service::default() };
        let view = v1::ClusterView {
            nodes: vec![node("a"), node("b"), node("c")],
            services: vec![service],
            ..v1::ClusterView::default()
        };
        GetViewResponse { view: Some(view), ..GetViewResponse::default() }
    }

    fn seen() -> Report {
        let told = [
            ("a".to_owned(), (Some(report("a", 1000, 1000)), report("a", 3000, 5000))),
            ("b".to_owned(), (Some(report("b", 500, 9000)), report("b", 1500, 2000))),
            ("c".to_owned(), (None, report("c", 7, 7))),
        ];
        let endpoint =
            Endpoint { task_id: "t".to_owned(), service_id: "s".to_owned(), ..Endpoint::default() };
        Report::new(&view(), &[endpoint.clone(), endpoint], &told.into())
    }

    #[test]
    fn all_nodes_are_added_up() {
        let mut report = seen();
        report.sort(Sort::Traffic);
        let rates: Vec<_> =
            report.nodes.iter().map(|n| (n.name.as_str(), n.rate.map(|r| r.bytes_in))).collect();
        // What the second one's counters say since they began anew; of the third nothing is known yet.
        assert_eq!(rates, [("a", Some(2000.0)), ("b", Some(2000.0)), ("c", None)]);
        assert_eq!((report.services[0].bytes, report.services[0].tasks), (4000.0, 1));
        assert_eq!(report.drops, [("no-backend".to_owned(), 4.0)].into());
    }

    #[test]
    fn nothing_stands_beyond_the_terminal() {
        for terminal in [(80, 24), (40, 10), (20, 3), (1, 1)] {
            for view in [View::Nodes, View::Services, View::Drops] {
                let lines = lines(&seen(), view, Sort::Traffic, terminal);
                assert!(lines.len() <= terminal.1, "{lines:?}");
                assert!(lines.iter().all(|l| l.chars().count() <= terminal.0 && !l.contains('\u{1b}')));
            }
        }
        let whole = lines(&seen(), View::Nodes, Sort::Name, (80, 24));
        assert!(whole[0].contains("3 nodes, 1 not heard of yet"), "{whole:?}");
        assert_eq!(View::Nodes.next().next().next(), View::Nodes);
    }
}
