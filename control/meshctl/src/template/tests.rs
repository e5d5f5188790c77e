use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Template, TemplateError};

fn service() -> Value {
    json!({
        "id": "1svc", "name": "web", "task_count": 2, "prefer_local": true, "affinity": null,
        "labels": {"team": "front", "a.b": "c"},
        "networks": [{"network": "prod", "vips": ["10.10.3.2"]}, {"network": "test", "vips": []}],
    })
}

fn filled(template: &str) -> Result<String, TemplateError> {
    template.parse::<Template>()?.fill(&service(), str::to_owned)
}

#[test]
fn what_users_of_docker_write() {
    for (template, text) in [
        ("{{.Name}}\\t{{.ID}}", "web\t1svc"),
        ("{{ .name }}:{{.TaskCount}}", "web:2"),
        ("{{json .Labels}}", r#"{"a.b":"c","team":"front"}"#),
        ("{{json .Affinity}}", "null"),
        ("{{.Affinity}}|{{.Affinity.Timeout}}", "|"),
        ("{{upper .Name}} {{.Name | title}} {{lower \"AB\"}}", "WEB Web ab"),
        ("{{.Labels.team}} {{index .Labels \"a.b\"}}{{index .Labels \"none\"}}", "front c"),
        ("{{range .Networks}}{{.Network}}={{join .VIPs \",\"}};{{end}}", "prod=10.10.3.2;test=;"),
        (
            "{{range $i, $n := .Networks}}{{if $i}}, {{end}}{{$n.Network}} of {{$.Name}}{{end}}",
            "prod of web, test of web",
        ),
        ("{{range $n := .Networks}}{{$n.network}}{{end}}", "prodtest"),
        ("{{range $k, $v := .Labels}}{{$k}}={{$v}} {{end}}", "a.b=c team=front "),
        ("{{range .Affinity}}x{{else}}none{{end}}", "none"),
        ("{{if .Affinity}}a{{else if eq .Name \"web\" \"db\"}}b{{else}}c{{end}}", "b"),
        ("{{if and .PreferLocal (gt .TaskCount 1)}}y{{end}}{{if not .PreferLocal}}n{{end}}", "y"),
        ("{{if or .Affinity (ne .Name \"web\") (le .TaskCount 1)}}y{{else}}n{{end}}", "n"),
        ("{{with .Labels}}{{.team}}{{end}}{{with .Affinity}}x{{else}}{{.Name}}{{end}}", "frontweb"),
        ("{{$n := .Name}}{{$n}}{{len .Networks}}{{len $n}}", "web23"),
        ("a {{- /* not shown }} */ -}} b", "ab"),
        ("{{printf \"%-5s|%3d|%q|%v%%\" .Name .TaskCount .ID .PreferLocal}}", "web  |  2|\"1svc\"|true%"),
        ("{{println .Name .ID}}{{print `raw \"x\"`}}", "web 1svc\nraw \"x\""),
        ("{{pad .Name 1 2}}|{{truncate .Name 2}}|{{index (split \"a-b\" \"-\") 1}}", " web  |we|b"),
        ("{{(index .Networks 0).Network}} {{.Networks | len}} {{index .Networks 9}}", "prod 2 "),
        (
            "{{replace .Name \"w\" \"W\"}}{{trim \" x \"}} {{-1}} {{.Labels.team|printf \"%s\"}}",
            "Webx -1 front",
        ),
        ("{{(index .Networks 0).VIPs}}", "[10.10.3.2]"),
        ("no actions", "no actions"),
    ] {
        assert_eq!(filled(template).as_deref(), Ok(text), "{template}");
    }
}

#[test]
fn wrong_ones_are_told() {
    for (template, told) in [
        ("{{.Name", "a {{ has no }}"),
        ("{{\"x}}", "a quote is not closed"),
        ("{{if .Name}}x", "{{if}} has no {{end}}"),
        ("{{range .Networks}}{{else}}x", "{{range}} has no {{end}}"),
        ("{{end}}", "{{end}} belongs to no"),
        ("{{else}}", "{{else}} belongs to no"),
        ("{{shout .Name}}", "there is no function shout; there are and, eq,"),
        ("{{.Nmae}}", "there is no field .Nmae; there are .affinity, .id,"),
        ("{{.Name.First}}", "\"web\" has no field .First"),
        ("{{$x}}", "variable $x was not set"),
        ("{{range .Name}}{{end}}", "range needs a list, not \"web\""),
        ("{{join .Name \",\"}}", "join needs a list"),
        ("{{printf \"%x\" 1}}", "printf needs a format"),
        ("{{.Name .ID}}", "\".ID\" makes no sense in {{.Name .ID}}"),
        ("{{}}", "makes no sense"),
        ("{{.Name | }}", "makes no sense"),
        ("{{(.Name}}", "makes no sense"),
        ("{{eq .Name}}", "eq needs values"),
    ] {
        let error = filled(template).unwrap_err().to_string();
        assert!(error.contains(told), "{template}: {error}");
    }
    let deep = format!("{{{{{}.{}}}}}", "(".repeat(5000), ")".repeat(5000));
    assert_eq!(filled(&deep), Err(TemplateError::Deep));
    assert_eq!(filled(&"{{if .}}".repeat(5000)), Err(TemplateError::Deep));
}

#[test]
fn headings_are_the_fields() {
    let headings = |text: &str| text.parse::<Template>().unwrap().headings();
    assert_eq!(
        headings("table {{.ID}}\\t{{upper .TaskCount}} {{.Name}}\\tx\\t{{json .labels.team}}"),
        ["ID", "TASK COUNT", "", "TEAM"]
    );
    assert!("table {{.ID}}".parse::<Template>().unwrap().is_table());
    assert!(!"{{.ID}}".parse::<Template>().unwrap().is_table());
}

#[test]
fn texts_of_others_can_be_escaped() {
    let template: Template = "{{.}}\\n{{json .}}".parse().unwrap();
    let text = template.fill(&json!("\u{1b}[2J"), crate::output::plain).unwrap();
    assert_eq!(text, "\\u{1b}[2J\n\"\\\\u001b[2J\"".replace("\\\\u", "\\u"));
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "(\\{\\{|\\}\\}|-|range |if |else|end|\\.|\\$|:=|\\||\\(|\\)|\"|`|/\\*|\\*/|[a-zA-Zä0-9% ,]){0,24}") {
        let _ = filled(&text);
    }
}
