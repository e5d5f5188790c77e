//! Commands that help and documentation name, held against the command line that there is.

use std::{fs, path::Path};

use clap::{Command, CommandFactory, Parser, error::ErrorKind};

use super::Cli;

#[test]
fn examples_are_taken() {
    fn check(command: &Command, wrong: &mut Vec<String>) {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        for example in help.lines().filter(|line| line.starts_with("  meshctl ")) {
            // What stands apart behind it says what it does.
            let example = example.trim_start().split("   ").next().unwrap_or_default();
            if let Err(error) = Cli::try_parse_from(words(example)) {
                wrong.push(format!("{example}: {error}"));
            }
        }
        command.get_subcommands().for_each(|verb| check(verb, wrong));
    }
    let mut wrong = Vec::new();
    check(&Cli::command(), &mut wrong);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn pages_name_verbs_and_options_that_are_there() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut pages: Vec<_> =
        fs::read_dir(repository.join("docs")).unwrap().map(|entry| entry.unwrap().path()).collect();
    pages.push(repository.join("README.md"));
    let mut seen = 0;
    for page in pages.iter().filter(|page| page.extension().is_some_and(|extension| extension == "md")) {
        let text = fs::read_to_string(page).unwrap();
        // Every other part is between backticks; fences are three of them, with nothing between the first two.
        let texts = text.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
        let commands = texts.filter(|text| text.starts_with("meshctl "));
        // Lines of usage are made from the command line itself.
        for named in commands.filter(|text| !text.contains("[OPTIONS]") && !text.contains('<')) {
            let words = words(&named.replace(['[', ']'], ""));
            if words.get(1).is_some_and(|verb| verb.chars().all(char::is_uppercase)) {
                continue;
            }
            seen += 1;
            let kind = Cli::try_parse_from(&words).map_err(|error| error.kind());
            let gone = [ErrorKind::UnknownArgument, ErrorKind::InvalidSubcommand];
            let place = page.display();
            assert!(!kind.is_err_and(|kind| gone.contains(&kind)), "{place}: `{named}`");
        }
    }
    assert!(seen > 50, "only {seen} commands found");
}

#[test]
fn the_page_of_verbs_has_each_in_its_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cli.md");
    let text = fs::read_to_string(path).unwrap();
    let by_hand = text.split("## What is printed").next().unwrap();
    for verb in Cli::command().get_subcommands().filter(|verb| !verb.is_hide_set()) {
        let name = verb.get_name();
        assert!(by_hand.contains(&format!("`{name}")), "docs/cli.md: the table has no {name}");
    }
}

/// A command line as a shell would split it, up to where its input or output goes.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    let mut depth = 0;
    for c in line.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, ' ') if depth == 0 => words.push(std::mem::take(&mut word)),
            (None, '(' | ')') => {
                depth += if c == '(' { 1 } else { -1 };
                word.push(c);
            }
            (_, c) => word.push(c),
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    let end = words.iter().position(|word| ["|", "<", ">"].contains(&word.as_str())).unwrap_or(words.len());
    words.truncate(end);
    words
}
