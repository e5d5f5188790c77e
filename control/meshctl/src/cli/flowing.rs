//! The text below the options of a verb, in paragraphs that clap breaks where the terminal ends.

use clap::Command;

/// So long is a line of the source that goes on in the next one.
const SOURCE_LINE: usize = 90;

/// The command line with such texts.
pub fn flowing(command: Command) -> Command {
    let text = command.get_after_help().map(|text| paragraphs(&text.to_string()));
    let command = command.mut_subcommands(flowing);
    match text {
        Some(text) => command.after_help(text),
        None => command,
    }
}

/// Examples and tables are indented; exit codes have a line of their own.
fn paragraphs(text: &str) -> String {
    let mut whole = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        whole.push_str(line);
        let goes_on = |next: &&str| {
            let own = next.is_empty() || next.starts_with(' ') || next.starts_with("Exit code");
            line.len() >= SOURCE_LINE && !line.starts_with(' ') && !own
        };
        whole.push(if lines.peek().is_some_and(goes_on) { ' ' } else { '\n' });
    }
    whole.truncate(whole.trim_end().len());
    whole
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::Cli;

    /// Lines that end although the next word, in the middle of a sentence, has room behind them.
    fn ragged(command: &Command, columns: usize) -> Vec<String> {
        let mut found: Vec<String> =
            command.get_subcommands().flat_map(|verb| ragged(verb, columns)).collect();
        let help = command.clone().term_width(columns).render_help().to_string();
        let lines: Vec<&str> = help.lines().collect();
        for pair in lines.windows(2) {
            let [line, next] = [pair[0], pair[1]];
            let goes_on = next.starts_with(|c: char| c.is_lowercase()) && !line.is_empty();
            let word = next.split(' ').next().unwrap_or_default();
            if goes_on && !line.starts_with(' ') && line.len() + 1 + word.len() <= columns {
                found.push(format!("{}: {line:?}, {next:?}", command.get_name()));
            }
        }
        found
    }

    #[test]
    fn lines_end_where_the_terminal_does() {
        for columns in [80, 100, 120] {
            assert_eq!(ragged(&flowing(Cli::command()), columns), [""; 0], "{columns} columns");
        }
        assert!(!ragged(&Cli::command(), 80).is_empty());
    }

    #[test]
    fn examples_and_exit_codes_keep_their_lines() {
        let line = "a".repeat(SOURCE_LINE);
        let text = format!("Examples:\n  one\n  two\n\n{line}\nb\nExit code: 1.\n");
        assert_eq!(paragraphs(&text), format!("Examples:\n  one\n  two\n\n{line} b\nExit code: 1."));
        assert_eq!(paragraphs(&format!("{line}\nExit code: 1.")), format!("{line}\nExit code: 1."));
        assert_eq!(paragraphs(&format!("  {line}\n  {line}")), format!("  {line}\n  {line}"));
    }
}
