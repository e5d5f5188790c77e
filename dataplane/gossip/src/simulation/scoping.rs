//! Tables go only to those who want them.

use super::*;
use crate::Table;

fn networks(of: impl IntoIterator<Item = u128>) -> Interest {
    Interest::Networks(of.into_iter().map(net).collect())
}

fn holds(sim: &Sim, n: u8, scope: u128) -> bool {
    sim.cores[&n].core.records.tables().any(|table| table == Table::Endpoints(net(scope)))
}

#[test]
fn the_uninterested_never_store_a_table() {
    let mut sim = Sim::empty(1);
    sim.boot(1, 1, 4, networks([1, 2]));
    sim.boot(2, 1, 4, networks([1]));
    sim.boot(3, 1, 4, networks([2]));
    sim.boot(4, 1, 4, Interest::All);
    sim.until(SECOND, Sim::all_alive);
    sim.run(SECOND);
    let both = [own(1, 1, [11]), own(1, 2, [12])].concat();
    sim.tell(1, Input::Announce(both));
    sim.until(SECOND, |s| s.sees(4, 1) == [11].into() && s.sees(4, 2) == [12].into());
    let end = sim.now + SECOND * 30;
    while sim.step(end) {
        assert!(!holds(&sim, 2, 2) && !holds(&sim, 3, 1));
    }
    assert_eq!((sim.sees(2, 1), sim.sees(3, 2)), ([11].into(), [12].into()));
}

#[test]
fn grown_interest_pulls_the_table() {
    let mut sim = Sim::empty(2);
    for n in 1..=4 {
        sim.boot(n, 1, 4, networks(if n == 4 { vec![] } else { vec![1] }));
    }
    sim.until(SECOND, Sim::all_alive);
    for n in 1..=3 {
        sim.tell(n, Input::Announce(own(n, 1, (0..100).map(|t| u128::from(n) * 1000 + t))));
    }
    sim.run(SECOND * 2);
    assert!(!holds(&sim, 4, 1));
    sim.tell(4, Input::Interest(networks([1])));
    let took = sim.until(SECOND, |s| s.sees(4, 1).len() == 300);
    assert!(took < Duration::from_millis(50), "{took:?}");
    sim.tell(4, Input::Interest(networks([])));
    assert!(!holds(&sim, 4, 1) && sim.sees(4, 1).is_empty());
    sim.tell(4, Input::Interest(Interest::All));
    sim.until(SECOND, |s| s.sees(4, 1).len() == 300);
}

#[test]
fn one_endpoint_in_two_tables() {
    let mut sim = Sim::empty(3);
    sim.boot(1, 1, 2, networks([1, 9]));
    sim.boot(2, 1, 2, networks([9]));
    sim.until(SECOND, Sim::all_alive);
    let endpoint = endpoint(1, 7, 1);
    let told = [1, 9].map(|scope| Announcement { scope: net(scope), endpoint: endpoint.clone() });
    sim.tell(1, Input::Announce(told.into()));
    sim.until(SECOND, |s| s.sees(2, 9) == [7].into());
    assert!(sim.sees(2, 1).is_empty());
    let table = sim.tables(2).endpoints.get(&net(9)).unwrap();
    assert_eq!(**table.get(&(&endpoint).into()).unwrap(), endpoint);
}

#[test]
fn a_table_that_nobody_else_wants_waits_for_no_comparison() {
    let mut sim = Sim::empty(3);
    sim.boot(1, 1000, 2, Interest::All);
    sim.boot(2, 1000, 2, Interest::Networks([net(1)].into()));
    sim.tell(1, Input::Announce(own(1, 1, [1]).into_iter().chain(own(1, 2, [2])).collect()));
    sim.run(SECOND * 30);
    let tables = sim.cores[&1].core.report().tables;
    let compared = tables.iter().map(|(table, report)| (*table, report.shared, report.equal.is_some()));
    let expected =
        [(Table::Interests, true), (Table::Endpoints(net(1)), true), (Table::Endpoints(net(2)), false)];
    assert_eq!(compared.collect::<Vec<_>>(), expected.map(|(table, shared)| (table, shared, shared)));
}
