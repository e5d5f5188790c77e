//! Whether a command printed what its page says.

/// Whether `printed` is `wanted`. Runs of spaces are alike; `...` within a line stands for any characters, as a line of its
/// own for any lines.
pub fn is(wanted: &[String], printed: &str) -> bool {
    let printed: Vec<String> = printed.lines().map(collapsed).filter(|line| !line.is_empty()).collect();
    let wanted: Vec<String> = wanted.iter().map(|line| collapsed(line)).collect();
    lines(&wanted, &printed)
}

fn collapsed(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn lines(wanted: &[String], printed: &[String]) -> bool {
    match (wanted, printed) {
        ([], printed) => printed.is_empty(),
        ([any, rest @ ..], _) if any == "..." => {
            (0..=printed.len()).any(|from| lines(rest, &printed[from..]))
        }
        ([first, rest @ ..], [line, others @ ..]) => one(first, line) && lines(rest, others),
        (_, []) => false,
    }
}

fn one(wanted: &str, printed: &str) -> bool {
    match wanted.split_once("...") {
        None => wanted == printed,
        Some((before, rest)) => printed.strip_prefix(before).is_some_and(|printed| {
            let mut ends = printed.char_indices().map(|(at, _)| at).chain([printed.len()]);
            ends.any(|at| one(rest, &printed[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prints(wanted: &str, printed: &str) -> bool {
        is(&wanted.lines().map(str::to_owned).collect::<Vec<_>>(), printed)
    }

    #[test]
    fn a_page_says_what_is_printed() {
        assert!(prints("a  b", "a b\n\n"));
        assert!(prints("ID ... READY", "ID   4f ü READY"));
        assert!(prints("first\n...\nlast", "first\none\ntwo\nlast\n"));
        assert!(prints("...\nlast\n...", "last"));
        assert!(prints("a...", "a"));
        assert!(!prints("a", "a\nb"));
        assert!(!prints("a\nb", "a"));
        assert!(!prints("first\n...\nlast", "first\none\n"));
        assert!(!prints("x...y", "xyz"));
        assert!(!prints("a", ""));
    }
}
