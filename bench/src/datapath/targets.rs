//! How good it is meant to be, in the same run on the same machine.

use super::Group;
use crate::{
    load::Measure,
    path::Way,
    programs::Row,
    record::{
        Bound::{self, AtLeast, AtMost},
        Record, Suite, Target,
    },
    stats::median,
};

/// The key of the figure of all programs.
pub const PACKET: &str = "packet";

/// A ratio that is to be reached.
struct Aim {
    group: Group,
    measure: Measure,
    way: Way,
    base: Way,
    bound: Bound,
}

/// Adds the outcome of every target for which there are figures.
pub fn tell(record: &mut Record) {
    let outcomes = all().into_iter().filter_map(|Aim { group, measure, way, base, bound }| {
        let measured = record.ratio(group.suite(), measure.key(), way.key(), base.key())?;
        let what = format!("{}: {}", way.title(), measure.title());
        Some(Target { what, of: base.title().to_owned(), bound, measured }).filter(|_| measured.is_finite())
    });
    let outcomes: Vec<Target> = outcomes.collect();
    record.targets.extend(outcomes);
}

/// As [`tell`], of the programs that have a limit.
pub fn tell_programs(record: &mut Record, rows: &[Row]) {
    let figure = record.figures.iter().find(|figure| figure.suite == Suite::Programs && figure.key == PACKET);
    let Some(figure) = figure else { return };
    let outcomes = rows.iter().filter_map(|row| {
        let what = format!("{}: {}", row.program, row.what);
        let measured = median(&figure.subject(&what)?.values);
        Some(Target { what, of: "ns a packet".to_owned(), bound: AtMost(row.at_most?), measured })
    });
    let outcomes: Vec<Target> = outcomes.collect();
    record.targets.extend(outcomes);
}

fn all() -> Vec<Aim> {
    let aim = |group, base, way, measure, bound| Aim { group, measure, way, base, bound };
    let mut all = Vec::new();
    for (base, measure, bound) in [
        (Way::Underlay, Measure::Stream, AtLeast(0.98)),
        (Way::Underlay, Measure::UdpRoundTrip, AtMost(1.15)),
        (Way::Underlay, Measure::TcpRoundTrip, AtMost(1.15)),
        (Way::Underlay, Measure::UdpRate, AtLeast(0.78)),
        (Way::Underlay, Measure::KeepAlive, AtLeast(0.90)),
        (Way::Underlay, Measure::PerRequest, AtLeast(0.88)),
        (Way::Bridge, Measure::UdpRoundTrip, AtMost(0.85)),
        (Way::Bridge, Measure::TcpRoundTrip, AtMost(0.85)),
        (Way::Bridge, Measure::UdpRate, AtLeast(1.4)),
    ] {
        all.push(aim(Group::Overlay, base, Way::Overlay, measure, bound));
    }
    for (way, base, bound) in [
        (Way::Near, Way::Straight, AtLeast(0.90)),
        (Way::Far, Way::Straight, AtLeast(0.70)),
        (Way::FarDirect, Way::Straight, AtLeast(0.80)),
        (Way::Far, Way::Dnat, AtLeast(1.25)),
        (Way::Far, Way::Haproxy, AtLeast(1.5)),
    ] {
        for measure in [Measure::KeepAlive, Measure::PerRequest] {
            all.push(aim(Group::Published, base, way, measure, bound));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{datapath::add, load::Sample};

    #[test]
    fn only_what_was_measured_has_an_outcome() {
        let mut record = Record::begin(String::new(), false).unwrap();
        tell(&mut record);
        assert!(record.targets.is_empty());
        for (way, value) in [(Way::Far, 60.0), (Way::Straight, 100.0)] {
            add(&mut record, Group::Published, Measure::KeepAlive, way, Sample { value, cpu: 0.25 });
        }
        tell(&mut record);
        assert_eq!(record.targets.len(), 1);
        assert!(record.targets[0].measured == 0.6 && !record.targets[0].met(), "{:?}", record.targets[0]);
        let figure = &record.figures[0];
        assert_eq!(figure.suite, Suite::Mesh);
        assert_eq!(figure.base().map(|base| base.ours), Some(false));
        assert_eq!(figure.subject(Way::Far.key()).unwrap().cpu().unwrap().values, [250_000.0]);
    }
}
