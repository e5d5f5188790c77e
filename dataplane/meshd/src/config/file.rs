//! Reading the file: every fault at once, each with its line.

use std::{collections::BTreeMap, fmt, ops::Range, path::PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, de::IntoDeserializer};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{Config, Flags, keys};

/// All that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Findings(Vec<Finding>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    /// `FILE:LINE`; none for what a flag says.
    place: Option<(PathBuf, usize)>,
    /// Such as `limits.flows`; none where the file is no TOML.
    key: Option<String>,
    what: String,
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration is wrong")?;
        for Finding { place, key, what } in &self.0 {
            write!(f, "\n  ")?;
            if let Some((file, line)) = place {
                write!(f, "{}:{line}: ", file.display())?;
            }
            if let Some(key) = key {
                write!(f, "{key}: ")?;
            }
            write!(f, "{what}")?;
        }
        Ok(())
    }
}

impl Config {
    /// Reads the file, if any, and lets the flags win. What is wrong with it is a [`Findings`].
    pub fn load(flags: &Flags) -> Result<Self> {
        let mut findings = Vec::new();
        let mut lines = BTreeMap::new();
        let mut config = match flags.file() {
            None => Self::default(),
            Some(path) => {
                let failed = || format!("cannot read the configuration {}", path.display());
                let text = std::fs::read_to_string(path).with_context(failed)?;
                let mut read = Reading { text: &text, lines: BTreeMap::new(), found: Vec::new() };
                let config = read.config();
                let place = |line: usize| Some((path.to_owned(), line));
                let found = read.found.into_iter();
                findings.extend(found.map(|(line, key, what)| Finding { place: place(line), key, what }));
                lines.extend(read.lines.into_iter().map(|(key, line)| (key, place(line))));
                config
            }
        };
        let given = [
            ("state_dir", &mut config.state_dir, &flags.state_dir),
            ("run_dir", &mut config.run_dir, &flags.run_dir),
            ("bpf_dir", &mut config.bpf_dir, &flags.bpf_dir),
        ];
        for (key, value, flag) in given {
            if let Some(flag) = flag {
                value.clone_from(flag);
                lines.remove(key);
            }
        }
        findings.extend(config.wrongs().into_iter().map(|wrong| Finding {
            place: lines.get(wrong.key).cloned().flatten(),
            key: Some(wrong.key.to_owned()),
            what: wrong.what,
        }));
        if findings.is_empty() {
            return Ok(config);
        }
        findings.sort_by(|a, b| a.place.cmp(&b.place));
        Err(Findings(findings).into())
    }
}

type Entry<'a> = (Spanned<std::borrow::Cow<'a, str>>, Spanned<DeValue<'a>>);

struct Reading<'a> {
    text: &'a str,
    /// Where each key is.
    lines: BTreeMap<String, usize>,
    found: Vec<(usize, Option<String>, String)>,
}

impl<'a> Reading<'a> {
    /// The configuration without what is wrong in it.
    fn config(&mut self) -> Config {
        let (table, errors) = DeTable::parse_recoverable(self.text);
        for error in errors {
            let line = self.line(&error.span().unwrap_or_default());
            self.found.push((line, None, format!("no TOML: {}", error.message())));
        }
        let whole = table.span();
        let mut right = DeTable::new();
        for entry in table.into_inner() {
            self.entry(entry, &mut right);
        }
        // Each key was read alone; read together nothing else can be wrong.
        Config::deserialize(Spanned::new(whole, right).into_deserializer()).unwrap_or_default()
    }

    /// Looks at one entry of the top, and takes what is right of it.
    fn entry(&mut self, (key, value): Entry<'a>, right: &mut DeTable<'a>) {
        let name = key.get_ref().to_string();
        let Some(section) = keys::of(Some(&name)) else {
            if self.take(None, &key, &value) {
                right.insert(key, value);
            }
            return;
        };
        let span = value.span();
        let inner = match value.into_inner() {
            DeValue::Table(inner) => inner,
            other => {
                let what =
                    format!("is a section: write [{name}] and its keys below, not a {}", other.type_str());
                return self.find(&key.span(), Some(name), what);
            }
        };
        let mut kept = DeTable::new();
        for (inner_key, inner_value) in inner {
            if !section.is_empty() && self.take(Some(&key), &inner_key, &inner_value) {
                kept.insert(inner_key, inner_value);
            }
        }
        right.insert(key, Spanned::new(span, DeValue::Table(kept)));
    }

    /// Whether a key exists and takes this value.
    fn take(
        &mut self,
        section: Option<&Spanned<std::borrow::Cow<'a, str>>>,
        key: &Spanned<std::borrow::Cow<'a, str>>,
        value: &Spanned<DeValue<'a>>,
    ) -> bool {
        let within = section.map(|section| section.get_ref().as_ref());
        let name = key.get_ref().as_ref();
        let full = within.map_or_else(|| name.to_owned(), |section| format!("{section}.{name}"));
        if !keys::of(within).is_some_and(|keys| keys.contains(&name)) {
            let what = match keys::meant(within, name) {
                Some(meant) => format!("there is no such key; did you mean `{meant}`?"),
                None => "there is no such key; meshd(8) and docs/configuration.md list them".to_owned(),
            };
            self.find(&key.span(), Some(full), what);
            return false;
        }
        self.lines.insert(full.clone(), self.line(&key.span()));
        let mut alone = DeTable::new();
        alone.insert(key.clone(), value.clone());
        if let Some(section) = section {
            let inner = Spanned::new(value.span(), DeValue::Table(std::mem::take(&mut alone)));
            alone.insert(section.clone(), inner);
        }
        match Config::deserialize(Spanned::new(value.span(), alone).into_deserializer()) {
            Ok(_) => true,
            Err(error) => {
                let span = error.span().unwrap_or_else(|| value.span());
                self.find(&span, Some(full), error.message().to_owned());
                false
            }
        }
    }

    fn find(&mut self, span: &Range<usize>, key: Option<String>, what: String) {
        self.found.push((self.line(span), key, what));
    }

    /// The number of the line that a span begins on, from 1.
    fn line(&self, span: &Range<usize>) -> usize {
        let before = self.text.as_bytes().iter().take(span.start);
        1 + before.filter(|byte| **byte == b'\n').count()
    }
}
