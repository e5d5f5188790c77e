//! Links from page to page.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::{read, repository};

/// Checks the links of the page at `path`, below the repository.
pub fn check(path: &str) -> Result<()> {
    let folder = Path::new(path).parent().context("a page in no folder")?;
    for link in found(&read(path)?) {
        let (file, heading) = link.split_once('#').unwrap_or((link.as_str(), ""));
        let target = if file.is_empty() { path.into() } else { folder.join(file) };
        ensure!(repository().join(&target).exists(), "{path}: {link}: there is no {}", target.display());
        if !heading.is_empty() {
            let there = headings(&read(&target.to_string_lossy())?);
            ensure!(
                there.iter().any(|name| name == heading),
                "{path}: {link}: no such heading, but {there:?}"
            );
        }
    }
    Ok(())
}

/// The links that lead nowhere else than into the repository.
fn found(text: &str) -> Vec<String> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    targets.map(|(target, _)| target.to_owned()).filter(|target| !target.contains("://")).collect()
}

/// What a page's headings are called in links.
fn headings(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| line.starts_with('#'));
    let name = |line: &str| -> String {
        let kept = line.trim_start_matches('#').trim().to_lowercase();
        let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    lines.map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_headings_meet() {
        assert_eq!(found("see [a](b.md#c-d) and [e](https://example.org/) or [f](#g)"), ["b.md#c-d", "#g"]);
        assert_eq!(headings("# A page\ntext\n## 2. Make `it`, last\n"), ["a-page", "2-make-it-last"]);
        assert!(check("docs/README.md").is_ok());
    }
}
