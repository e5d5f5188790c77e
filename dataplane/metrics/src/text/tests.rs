use super::*;

static PACKETS: Family =
    Family { name: "meshd_packets", kind: Kind::Counter, help: "Packets.", labels: &["task", "way"] };
static TOOK: Family =
    Family { name: "meshd_took_seconds", kind: Kind::Histogram, help: "How long.", labels: &["of"] };
static BUILD: Family = Family { name: "meshd_build", kind: Kind::Info, help: "Build.", labels: &["version"] };
static TASKS: Family = Family { name: "meshd_tasks", kind: Kind::Gauge, help: "Tasks.", labels: &[] };

fn text(format: Format) -> String {
    let mut writer = Writer::new(format);
    writer.family(&BUILD).with(&["0.1"], 1);
    let mut packets = writer.family(&PACKETS);
    packets.with(&["web.1", "in"], 5);
    packets.with(&["web.1", "out"], u64::MAX);
    writer.family(&TOOK).histogram(&["own"], &[0.00001, 1.0], &[2, 3, 1], 2.5);
    writer.single(&TASKS, 3);
    writer.finish()
}

impl From<i32> for Value {
    fn from(value: i32) -> Self {
        Self::Whole(u64::try_from(value).unwrap())
    }
}

#[test]
fn prometheus_text() {
    let expected = "\
# HELP meshd_build_info Build.
# TYPE meshd_build_info gauge
meshd_build_info{version=\"0.1\"} 1
# HELP meshd_packets_total Packets.
# TYPE meshd_packets_total counter
meshd_packets_total{task=\"web.1\",way=\"in\"} 5
meshd_packets_total{task=\"web.1\",way=\"out\"} 18446744073709551615
# HELP meshd_took_seconds How long.
# TYPE meshd_took_seconds histogram
meshd_took_seconds_bucket{of=\"own\",le=\"1e-5\"} 2
meshd_took_seconds_bucket{of=\"own\",le=\"1.0\"} 5
meshd_took_seconds_bucket{of=\"own\",le=\"+Inf\"} 6
meshd_took_seconds_sum{of=\"own\"} 2.5
meshd_took_seconds_count{of=\"own\"} 6
# HELP meshd_tasks Tasks.
# TYPE meshd_tasks gauge
meshd_tasks 3
";
    assert_eq!(text(Format::Prometheus), expected);
}

#[test]
fn openmetrics_text() {
    let text = text(Format::OpenMetrics);
    assert!(
        text.starts_with("# HELP meshd_build Build.\n# TYPE meshd_build info\nmeshd_build_info{"),
        "{text}"
    );
    assert!(text.contains("# TYPE meshd_packets counter\nmeshd_packets_total{"), "{text}");
    assert!(
        text.contains("# TYPE meshd_took_seconds histogram\n# UNIT meshd_took_seconds seconds\nmeshd_took_seconds_bucket"),
        "{text}"
    );
    assert!(text.ends_with("meshd_tasks 3\n# EOF\n"), "{text}");
}

#[test]
fn hostile_names_stay_inside_their_quotes() {
    let mut writer = Writer::new(Format::Prometheus);
    writer.family(&PACKETS).with(&["a\"} 1\nevil{x=\"\\", "\r\u{1b}[2J\u{0}"], 1);
    let text = writer.finish();
    let sample = text.lines().last().unwrap();
    assert_eq!(text.lines().count(), 3, "{text}");
    assert_eq!(
        sample,
        "meshd_packets_total{task=\"a\\\"} 1\\nevil{x=\\\"\\\\\",way=\"\u{fffd}\u{fffd}[2J\u{fffd}\"} 1"
    );
}

#[test]
fn a_family_is_there_once_or_not_at_all() {
    let mut writer = Writer::new(Format::Prometheus);
    let _nothing = writer.family(&PACKETS);
    writer.single(&TASKS, 3);
    writer.single(&TASKS, 4);
    let text = writer.finish();
    assert_eq!(text, "# HELP meshd_tasks Tasks.\n# TYPE meshd_tasks gauge\nmeshd_tasks 3\n");
}

#[test]
fn numbers_that_are_none() {
    let shown: Vec<_> = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.25]
        .into_iter()
        .map(|v| Value::from(v).to_string())
        .collect();
    assert_eq!(shown, ["NaN", "+Inf", "-Inf", "0.25"]);
}

#[test]
fn whole_numbers_are_written_as_the_standard_library_does() {
    for number in [0, 1, 9, 10, 99, 100, 1_234_567_890, u64::MAX - 1, u64::MAX] {
        let mut text = String::new();
        push_whole(&mut text, number);
        assert_eq!(text, number.to_string());
    }
}

#[test]
fn the_format_is_what_the_client_prefers() {
    use Format::*;
    for (accept, format) in [
        ("", Prometheus),
        ("*/*", Prometheus),
        ("text/plain;version=0.0.4", Prometheus),
        ("application/openmetrics-text", OpenMetrics),
        (
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;q=0.5,*/*;q=0.1",
            OpenMetrics,
        ),
        ("application/openmetrics-text; version=0.0.1", Prometheus),
        ("application/openmetrics-text;q=0.1, text/plain;q=0.9", Prometheus),
        ("application/openmetrics-text;q=0", Prometheus),
        ("application/openmetrics-text;q=nonsense;;;=,,,", Prometheus),
        ("\u{fffd};\"", Prometheus),
    ] {
        assert_eq!(Format::accepted(accept), format, "{accept}");
    }
}
