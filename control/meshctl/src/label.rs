//! Labels: `key=value`.

use std::collections::BTreeMap;

/// Options that change labels.
#[derive(Debug, Clone, clap::Args)]
pub struct Labels {
    /// Label to set; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse)]
    label_add: Vec<(String, String)>,
    /// Label to take away; may be repeated
    #[arg(long, value_name = "KEY")]
    label_rm: Vec<String>,
}

impl Labels {
    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        self.label_add.is_empty() && self.label_rm.is_empty()
    }

    /// For a request: what to set, what to take away.
    pub fn wire(self) -> (BTreeMap<String, String>, Vec<String>) {
        (self.label_add.into_iter().collect(), self.label_rm)
    }
}

/// Reads `key=value`; without a value it is empty, as with docker.
pub fn parse(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    if key.is_empty() {
        return Err(format!("{text:?} has no key; write KEY=VALUE"));
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// For people.
pub fn list(labels: &BTreeMap<String, String>) -> String {
    crate::output::list(labels.iter().map(|(key, value)| format!("{key}={value}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        assert_eq!(parse("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(parse("a"), Ok(("a".to_owned(), String::new())));
        assert!(parse("=b").is_err() && parse("").is_err());
    }
}
