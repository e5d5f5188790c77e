//! Labels: `key=value`.

use std::collections::BTreeMap;

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
