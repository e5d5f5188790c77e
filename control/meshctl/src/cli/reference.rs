//! The part of docs/cli.md that is made from the command line itself, so that it tells of every verb and option.

use std::{fs, path::Path};

use clap::{Arg, Command, CommandFactory};

use super::Cli;

/// What stands before it.
const MARK: &str = "<!-- From here on made from the command line itself: UPDATE_GOLDEN=1 cargo nextest run -p meshctl reference -->";

#[test]
fn the_reference_tells_of_every_verb() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cli.md");
    let page = fs::read_to_string(&path).unwrap();
    let (by_hand, generated) = page.split_once(MARK).expect("docs/cli.md has lost its mark");
    let now = reference();
    if generated != now && std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, format!("{by_hand}{MARK}{now}")).unwrap();
        return;
    }
    for (have, want) in generated.lines().zip(now.lines()) {
        assert_eq!(have, want, "run UPDATE_GOLDEN=1 cargo nextest run -p meshctl reference");
    }
    assert!(generated == now, "run UPDATE_GOLDEN=1 cargo nextest run -p meshctl reference");
}

#[test]
fn the_page_names_verbs_that_there_are() {
    let mut command = Cli::command();
    command.build();
    let page = include_str!("../../../../docs/cli.md");
    let by_hand = page.split(MARK).next().unwrap();
    let mut seen = 0;
    for span in by_hand.split('`').skip(1).step_by(2).filter_map(|span| span.strip_prefix("meshctl ")) {
        let words = span.split_whitespace().skip_while(|word| word.starts_with('-'));
        let mut verb = &command;
        for word in words.take_while(|word| word.chars().all(|c| c.is_ascii_lowercase() || c == '-')) {
            if !verb.has_subcommands() {
                break;
            }
            verb =
                verb.find_subcommand(word).unwrap_or_else(|| panic!("`meshctl {span}`: there is no {word}"));
        }
        seen += 1;
    }
    assert!(seen > 0);
}

fn reference() -> String {
    let mut command = Cli::command();
    command.build();
    let mut text = "\n\n## Every verb\n\nOptions of every verb:\n\n".to_owned();
    text.push_str(&table(command.get_arguments().filter(|argument| argument.is_global_set())));
    verbs(&command, "meshctl", &mut text);
    text
}

fn verbs(command: &Command, path: &str, text: &mut String) {
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set() && verb.get_name() != "help") {
        let path = format!("{path} {}", verb.get_name());
        // One like `ca` does something by itself too.
        if verb.get_after_help().is_some() {
            one(verb, &path, text);
        }
        verbs(verb, &path, text);
    }
}

fn one(verb: &Command, path: &str, text: &mut String) {
    let about = verb.get_about().map(ToString::to_string).unwrap_or_default();
    let usage = verb.clone().render_usage().to_string();
    let usage =
        usage.trim_start_matches("Usage: ").lines().map(str::trim).collect::<Vec<_>>().join("`, or `");
    text.push_str(&format!("\n### {path}\n\n{about}: `{usage}`\n\n"));
    text.push_str(&table(verb.get_arguments().filter(|argument| !argument.is_global_set())));
    let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
    text.push_str(&format!("\n```text\n{}\n```\n", help.trim()));
}

fn table<'a>(arguments: impl Iterator<Item = &'a Arg>) -> String {
    let unimportant = |argument: &&Arg| ["help", "version"].contains(&argument.get_id().as_str());
    let rows: String = arguments
        .filter(|argument| !argument.is_hide_set() && !unimportant(argument))
        .map(|argument| {
            let name = argument.to_string().replace('|', "\\|");
            let short = argument.get_short().map(|c| format!("-{c}, ")).unwrap_or_default();
            let help = argument.get_help().map(ToString::to_string).unwrap_or_default().replace('|', "\\|");
            let default: Vec<_> =
                argument.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
            let default = match argument.get_action().takes_values() && !default.is_empty() {
                true => format!(" (default {})", default.join(", ")),
                false => String::new(),
            };
            format!("| `{short}{name}` | {help}{default} |\n")
        })
        .collect();
    if rows.is_empty() { rows } else { format!("| | |\n|---|---|\n{rows}") }
}
