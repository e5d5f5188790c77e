//! Who reaches whom.

use std::collections::{BTreeMap, BTreeSet};

use mesh_api::v1::TestReport;
use serde::Serialize;

use crate::output::{Cell, Table, plain};

/// All that was tried.
#[derive(Debug, Serialize)]
pub struct Matrix {
    nodes: Vec<String>,
    cells: Vec<Place>,
    /// Nodes of which nothing is known, and why.
    silent: Vec<Silent>,
}

/// From one node to another; from a node to itself what does not go to a single task: VIPs, their name, its own port.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Place {
    from: String,
    to: String,
    worked: Vec<String>,
    failed: Vec<Fault>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Fault {
    check: String,
    why: String,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Silent {
    node: String,
    why: String,
}

impl Matrix {
    /// From the last report of each of `nodes`; `names` are by id.
    pub fn new(
        nodes: &BTreeSet<String>,
        names: &BTreeMap<String, String>,
        reports: &BTreeMap<String, TestReport>,
    ) -> Self {
        let name = |id: &String| names.get(id).unwrap_or(id).clone();
        let mut ordered: Vec<&String> = nodes.iter().collect();
        ordered.sort_by_key(|id| name(id));
        let (mut cells, mut silent) = (Vec::new(), Vec::new());
        for &from in &ordered {
            let report = match reports.get(from) {
                Some(report) if report.stage == "done" => report,
                other => {
                    let why = match other {
                        Some(report) if !report.failure.is_empty() => report.failure.clone(),
                        Some(_) => "made its task, and did not report in time".to_owned(),
                        None => "did not report: no daemon runs there, or no manager hears it".to_owned(),
                    };
                    silent.push(Silent { node: name(from), why });
                    continue;
                }
            };
            for &to in &ordered {
                let results = report.results.iter().filter(|result| result.to_node == *to);
                let (worked, failed): (Vec<_>, Vec<_>) =
                    results.partition(|result| result.failure.is_empty());
                let fault = |result: &mesh_api::v1::TestResult| Fault {
                    check: result.check.clone(),
                    why: result.failure.clone(),
                };
                cells.push(Place {
                    from: name(from),
                    to: name(to),
                    worked: worked.iter().map(|result| result.check.clone()).collect(),
                    failed: failed.into_iter().map(fault).collect(),
                });
            }
        }
        Self { nodes: ordered.into_iter().map(name).collect(), cells, silent }
    }

    /// Whether everything that was tried works, and all was tried.
    pub fn works(&self) -> bool {
        !self.nodes.is_empty()
            && self.silent.is_empty()
            && self.cells.iter().all(|cell| cell.failed.is_empty() && !cell.worked.is_empty())
    }
}

/// For people.
pub fn page(matrix: &Matrix) -> String {
    let headings: Vec<String> =
        std::iter::once("FROM \\ TO".to_owned()).chain(matrix.nodes.iter().map(|node| plain(node))).collect();
    let headings: Vec<&str> = headings.iter().map(String::as_str).collect();
    let mut table = Table::new(&headings);
    for from in &matrix.nodes {
        let row = matrix.nodes.iter().map(|to| {
            match matrix.cells.iter().find(|cell| cell.from == *from && cell.to == *to) {
                None => "?".to_owned(),
                Some(cell) if cell.failed.is_empty() && cell.worked.is_empty() => "?".to_owned(),
                Some(cell) if cell.failed.is_empty() => "ok".to_owned(),
                Some(cell) => {
                    let failed: Vec<String> = cell.failed.iter().map(|fault| plain(&fault.check)).collect();
                    format!("{} fail", failed.join(","))
                }
            }
        });
        table.row(std::iter::once(plain(from)).chain(row).map(Cell::new));
    }
    let mut text = table.render();
    text.push('\n');
    for Silent { node, why } in &matrix.silent {
        text += &format!("{}: {}\n", plain(node), plain(why));
    }
    for cell in &matrix.cells {
        for Fault { check, why } in &cell.failed {
            let from_to = match cell.from == cell.to {
                true => plain(&cell.from),
                false => format!("{} -> {}", plain(&cell.from), plain(&cell.to)),
            };
            text += &format!("{from_to}: {}: {}\n", plain(check), plain(why));
        }
    }
    let worked: usize = matrix.cells.iter().map(|cell| cell.worked.len()).sum();
    let failed: usize = matrix.cells.iter().map(|cell| cell.failed.len()).sum();
    text += &format!(
        "{} nodes, {worked} checks work, {failed} fail, {} nodes did not report\n",
        matrix.nodes.len(),
        matrix.silent.len()
    );
    if !matrix.works() {
        text += "`meshctl doctor` on the nodes named above looks for the cause.\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use mesh_api::v1::TestResult;

    use super::*;

    #[test]
    fn cells_name_what_fails() {
        let nodes: BTreeSet<String> = ["a", "b"].map(str::to_owned).into();
        let names = [("a", "n1"), ("b", "n2")].map(|(id, name)| (id.to_owned(), name.to_owned())).into();
        let result = |to: &str, check: &str, failure: &str| TestResult {
            to_node: to.to_owned(),
            check: check.to_owned(),
            failure: failure.to_owned(),
        };
        let report = |results| TestReport { stage: "done".to_owned(), results, ..Default::default() };
        let mut reports: BTreeMap<_, _> = [(
            "a".to_owned(),
            report(vec![
                result("a", "vip", ""),
                result("b", "tcp", "no answer in time"),
                result("b", "udp", ""),
            ]),
        )]
        .into();
        let matrix = Matrix::new(&nodes, &names, &reports);
        assert!(!matrix.works());
        let text = page(&matrix);
        assert!(text.contains("n1 -> n2: tcp: no answer in time\n"), "{text}");
        assert!(text.contains("n2: did not report"), "{text}");
        reports.insert("a".to_owned(), report(vec![result("a", "vip", ""), result("b", "tcp", "")]));
        reports.insert("b".to_owned(), report(vec![result("b", "vip", ""), result("a", "tcp", "")]));
        assert!(Matrix::new(&nodes, &names, &reports).works());
        reports.insert("b".to_owned(), report(vec![result("b", "vip", "")]));
        assert!(!Matrix::new(&nodes, &names, &reports).works(), "n1 was not tried");
    }
}
