//! Whether a command printed what its page says.

use super::Manner;

/// Whether `printed` is `wanted`. Runs of spaces are alike; `...` within a line stands for any characters, as a line of its
/// own for any lines.
pub fn is(wanted: &[String], printed: &str, manner: Manner) -> bool {
    let told = |line: &str| match manner {
        Manner::AnyNumbers => without_numbers(&collapsed(line)),
        Manner::Exactly | Manner::Refused => collapsed(line),
    };
    let printed: Vec<String> = printed.lines().map(told).filter(|line| !line.is_empty()).collect();
    let wanted: Vec<String> = wanted.iter().map(|line| told(line)).collect();
    lines(&wanted, &printed)
}

fn collapsed(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// With a 0 in place of each number.
fn without_numbers(line: &str) -> String {
    let mut text = String::new();
    for c in line.chars() {
        match c.is_ascii_digit() {
            true if text.ends_with('0') => {}
            true => text.push('0'),
            false => text.push(c),
        }
    }
    text
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
        is(&wanted.lines().map(str::to_owned).collect::<Vec<_>>(), printed, Manner::Exactly)
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

    #[test]
    fn numbers_may_be_others() {
        let like = |wanted: &str, printed| is(&[wanted.to_owned()], printed, Manner::AnyNumbers);
        assert!(like("VNI 4097 of 10.10.3.2:80, ... s", "VNI 7 of 10.10.13.2:8080, 3.1 s"));
        assert!(!like("4 tables", "four tables"));
        assert!(!like("10.10.3.2", "10.10.3"));
    }
}
