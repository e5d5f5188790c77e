//! What stands on the terminal of a node: its lines.

use std::collections::BTreeMap;

use super::rates::{Report, Row, Sort};
use crate::{
    live::fit,
    output::{Table, plain},
};

/// What is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum View {
    #[default]
    Services,
    Tasks,
    Networks,
    Drops,
}

impl View {
    /// The next one, after the last the first.
    pub fn next(self) -> Self {
        match self {
            Self::Services => Self::Tasks,
            Self::Tasks => Self::Networks,
            Self::Networks => Self::Drops,
            Self::Drops => Self::Services,
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Services => "services",
            Self::Tasks => "tasks",
            Self::Networks => "networks",
            Self::Drops => "drops",
        }
    }
}

/// The lines of a terminal of this size, without their ends.
pub fn lines(report: &Report, view: View, sort: Sort, (columns, rows): (usize, usize)) -> Vec<String> {
    let members: Vec<String> = report.members.iter().map(|(state, n)| format!("{n} {state}")).collect();
    let total: f64 = report.tasks.iter().map(|task| task.rate.bytes_in + task.rate.bytes_out).sum();
    let flows: u64 = report.tasks.iter().map(|task| task.flows).sum();
    let dropped: f64 = report.drops.values().sum();
    let mut lines = vec![
        format!("meshctl top: {}, nodes: {}", plain(&report.node), members.join(", ")),
        format!(
            "{}B/s of {} tasks, {flows} flows, {} drops/s",
            size(total),
            report.tasks.len(),
            size(dropped)
        ),
    ];
    lines.extend(report.fault.iter().map(|fault| format!("FAULT: {}", plain(fault))));
    let by = if view == View::Drops { String::new() } else { format!(" by {}", sort.as_str()) };
    lines.push(format!("{}{by}   [q] quit  [s] sort  [tab] next list", view.title()));
    lines.push(String::new());
    lines.extend(table(report, view).render_within(Some(columns)).lines().map(str::to_owned));
    fit(lines, (columns, rows))
}

/// The table of a list.
pub fn table(report: &Report, view: View) -> Table {
    let of = |what, about, rows: &[Row]| {
        let headings = [what, about, "FLOWS", "NEW/S", "IN B/S", "OUT B/S", "DROPS/S"];
        let mut table = Table::new(&headings).optional(&["DROPS/S", about, "NEW/S"]);
        for row in rows {
            table.row([
                row.name.clone(),
                row.about.clone(),
                row.flows.to_string(),
                size(row.rate.new_flows),
                size(row.rate.bytes_in),
                size(row.rate.bytes_out),
                size(row.rate.drops),
            ]);
        }
        table
    };
    match view {
        View::Services => of("SERVICE", "READY", &report.services),
        View::Tasks => of("TASK", "NETWORK", &report.tasks),
        View::Networks => of("NETWORK", "ENDPOINTS", &report.networks),
        View::Drops => drops(&report.drops),
    }
}

/// Reasons and how many a second.
pub fn drops(reasons: &BTreeMap<String, f64>) -> Table {
    let mut table = Table::new(&["REASON", "DROPS/S"]);
    for (reason, rate) in reasons {
        table.row([reason.clone(), size(*rate)]);
    }
    table
}

/// A number of few digits: 999, 1.0k, 12M.
pub fn size(value: f64) -> String {
    const STEPS: [&str; 5] = ["", "k", "M", "G", "T"];
    let mut value = value;
    let mut step = 0;
    while value >= 999.5 && step + 1 < STEPS.len() {
        value /= 1000.0;
        step += 1;
    }
    let digits = usize::from(value < 9.95 && (step > 0 || value.fract() > 0.049));
    format!("{value:.digits$}{}", STEPS[step])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::rates::Rate;

    fn report() -> Report {
        let row = |name: &str, bytes_in| Row {
            name: name.to_owned(),
            about: "2/3".to_owned(),
            flows: 12,
            rate: Rate { bytes_in, ..Rate::default() },
        };
        Report {
            node: "n1".to_owned(),
            seconds: 1.0,
            members: [("alive".to_owned(), 3)].into(),
            fault: None,
            services: (0..50).map(|n| row(&format!("service-{n}"), 1_500_000.0)).collect(),
            tasks: vec![row("web.1\u{1b}[2J", 10.0)],
            networks: Vec::new(),
            drops: [("no-backend".to_owned(), 2.0)].into(),
        }
    }

    #[test]
    fn nothing_stands_beyond_the_terminal() {
        for (columns, rows) in [(80, 24), (40, 10), (20, 3), (1, 1)] {
            for view in [View::Services, View::Tasks, View::Networks, View::Drops] {
                let lines = lines(&report(), view, Sort::Traffic, (columns, rows));
                assert!(lines.len() <= rows, "{lines:?}");
                assert!(lines.iter().all(|line| line.chars().count() <= columns), "{lines:?}");
                assert!(lines.iter().all(|line| !line.contains('\u{1b}')), "{lines:?}");
            }
        }
        let whole = lines(&report(), View::Services, Sort::Flows, (80, 24));
        assert!(whole[0].contains("n1") && whole[2].starts_with("services by flows"), "{whole:?}");
        assert!(whole[5].contains("service-0") && whole[5].contains("1.5M"), "{whole:?}");
    }

    #[test]
    fn sizes_have_few_digits() {
        let sizes = [0.0, 0.5, 7.0, 999.0, 1000.0, 1500.0, 12_345.0, 999_900.0, 2.5e15].map(size);
        assert_eq!(sizes, ["0", "0.5", "7", "999", "1.0k", "1.5k", "12k", "1.0M", "2500T"]);
    }

    #[test]
    fn every_list_has_its_turn() {
        let mut view = View::default();
        for _ in 0..4 {
            view = view.next();
        }
        assert_eq!(view, View::default());
    }
}
