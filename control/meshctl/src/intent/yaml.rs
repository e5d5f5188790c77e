//! YAML as a tree that knows its lines, and a reader that goes on after what is wrong.

use std::{collections::BTreeMap, fmt::Display, str::FromStr};

use saphyr_parser::{Event, Parser, ScalarStyle, Span, SpannedEventReceiver};

use super::Remark;

/// How many nodes aliases may stand for: what they repeat is copied.
const MOST_COPIES: usize = 10_000;
/// How deep lists and mappings may lie in each other.
const DEEPEST: usize = 64;

/// A value and its line.
#[derive(Debug, Clone)]
pub struct Node {
    /// From 1.
    pub line: usize,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    /// The text as it stands there, and whether it is in quotes.
    Scalar {
        text: String,
        quoted: bool,
    },
    List(Vec<Node>),
    Mapping(Vec<(Node, Node)>),
}

impl Node {
    fn null(line: usize) -> Self {
        Self { line, kind: Kind::Scalar { text: String::new(), quoted: false } }
    }

    /// Nothing, or `null`.
    pub fn is_null(&self) -> bool {
        matches!(&self.kind, Kind::Scalar { text, quoted: false } if ["", "~", "null"].contains(&text.as_str()))
    }

    /// Whether it is neither a list nor a mapping.
    pub fn is_scalar(&self) -> bool {
        matches!(self.kind, Kind::Scalar { .. })
    }

    /// Whether it is a mapping.
    pub fn is_mapping(&self) -> bool {
        matches!(self.kind, Kind::Mapping(_))
    }

    fn size(&self) -> usize {
        1 + match &self.kind {
            Kind::Scalar { .. } => 0,
            Kind::List(items) => items.iter().map(Node::size).sum(),
            Kind::Mapping(entries) => entries.iter().map(|(key, value)| key.size() + value.size()).sum(),
        }
    }
}

/// The only document of `text`; an empty one is nothing.
pub fn load(text: &str) -> Result<Node, Remark> {
    let mut tree = Tree::default();
    let loaded = Parser::new_from_str(text).load(&mut tree, true);
    loaded.map_err(|error| Remark { line: error.marker().line(), text: error.info().to_owned() })?;
    if let Some(problem) = tree.problem {
        return Err(problem);
    }
    match tree.documents.len() {
        0 => Ok(Node::null(1)),
        1 => Ok(tree.documents.remove(0)),
        _ => Err(Remark {
            line: tree.documents[1].line,
            text: "a second document begins here; write one".to_owned(),
        }),
    }
}

/// Builds nodes of events.
#[derive(Default)]
struct Tree {
    documents: Vec<Node>,
    /// Lists and mappings that are not at their end, with their anchors; a mapping's last key waits for its value.
    open: Vec<(Node, usize, Option<Node>)>,
    anchors: BTreeMap<usize, Node>,
    copied: usize,
    problem: Option<Remark>,
}

impl Tree {
    fn place(&mut self, node: Node, anchor: usize) {
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut() {
            None => self.documents.push(node),
            Some((parent, _, key)) => match &mut parent.kind {
                Kind::List(items) => items.push(node),
                Kind::Mapping(entries) => match key.take() {
                    Some(key) => entries.push((key, node)),
                    None => *key = Some(node),
                },
                Kind::Scalar { .. } => {}
            },
        }
    }

    fn begin(&mut self, line: usize, kind: Kind, anchor: usize) {
        if self.open.len() >= DEEPEST {
            self.problem.get_or_insert(Remark { line, text: format!("nested deeper than {DEEPEST} levels") });
        }
        self.open.push((Node { line, kind }, anchor, None));
    }

    fn copy(&mut self, line: usize, anchor: usize) {
        let mut node = self.anchors.get(&anchor).cloned().unwrap_or_else(|| Node::null(line));
        self.copied += node.size();
        node.line = line;
        self.place(node, 0);
        if self.copied > MOST_COPIES {
            self.problem.get_or_insert(Remark { line, text: "aliases repeat too much".to_owned() });
        }
    }
}

impl<'input> SpannedEventReceiver<'input> for Tree {
    fn on_event(&mut self, event: Event<'input>, span: Span) {
        if self.problem.is_some() {
            return;
        }
        let line = span.start.line();
        match event {
            Event::Scalar(text, style, anchor, _) => {
                let quoted = style != ScalarStyle::Plain;
                self.place(Node { line, kind: Kind::Scalar { text: text.into_owned(), quoted } }, anchor);
            }
            Event::SequenceStart(anchor, _) => self.begin(line, Kind::List(Vec::new()), anchor),
            Event::MappingStart(anchor, _) => self.begin(line, Kind::Mapping(Vec::new()), anchor),
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some((node, anchor, _)) = self.open.pop() {
                    self.place(node, anchor);
                }
            }
            Event::Alias(anchor) => self.copy(line, anchor),
            _ => {}
        }
    }
}

/// Reads nodes, and notes what is wrong instead of ending there.
#[derive(Debug, Default)]
pub struct Reader {
    /// What is wrong.
    pub problems: Vec<Remark>,
    /// What is read over.
    pub ignored: Vec<Remark>,
}

impl Reader {
    /// Notes what is wrong.
    pub fn problem(&mut self, at: &Node, text: impl Into<String>) {
        self.problems.push(Remark { line: at.line, text: text.into() });
    }

    /// Notes what is read over.
    pub fn ignore(&mut self, at: &Node, text: impl Into<String>) {
        self.ignored.push(Remark { line: at.line, text: text.into() });
    }

    /// The entries of a mapping with their keys; what `<<` merges in comes after what is there. Nothing has none.
    pub fn entries<'a>(&mut self, node: &'a Node, what: &str) -> Vec<(&'a str, &'a Node, &'a Node)> {
        let Kind::Mapping(pairs) = &node.kind else {
            if !node.is_null() {
                self.problem(node, format!("{what} has to be a mapping of keys and values"));
            }
            return Vec::new();
        };
        let mut entries: Vec<(&str, &Node, &Node)> = Vec::new();
        let mut merged = Vec::new();
        for (key, value) in pairs {
            match &key.kind {
                Kind::Scalar { text, quoted: false } if text == "<<" => match &value.kind {
                    Kind::List(items) => merged.extend(items),
                    _ => merged.push(value),
                },
                Kind::Scalar { text, .. } if entries.iter().any(|(known, ..)| known == text) => {
                    self.problem(key, format!("{what} has {text} twice"));
                }
                Kind::Scalar { text, .. } => entries.push((text, key, value)),
                _ => self.problem(key, format!("a key of {what} has to be a text")),
            }
        }
        for node in merged {
            for entry in self.entries(node, what) {
                if !entries.iter().any(|(known, ..)| *known == entry.0) {
                    entries.push(entry);
                }
            }
        }
        entries
    }

    /// The items of a list. Nothing has none.
    pub fn items<'a>(&mut self, node: &'a Node, what: &str) -> &'a [Node] {
        match &node.kind {
            Kind::List(items) => items,
            _ if node.is_null() => &[],
            _ => {
                self.problem(node, format!("{what} has to be a list"));
                &[]
            }
        }
    }

    /// The text of a scalar.
    pub fn text<'a>(&mut self, node: &'a Node, what: &str) -> Option<&'a str> {
        match &node.kind {
            Kind::Scalar { text, .. } if !node.is_null() => Some(text),
            _ => {
                self.problem(node, format!("{what} has to be a text or a number"));
                None
            }
        }
    }

    /// A text that stands for something.
    pub fn parsed<T: FromStr<Err: Display>>(&mut self, node: &Node, what: &str) -> Option<T> {
        let text = self.text(node, what)?;
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.problem(node, format!("{what}: {error}"));
                None
            }
        }
    }

    /// `true` or `false`.
    pub fn flag(&mut self, node: &Node, what: &str) -> bool {
        match &node.kind {
            Kind::Scalar { text, quoted: false } if text == "true" => true,
            Kind::Scalar { text, quoted: false } if text == "false" => false,
            _ => {
                self.problem(node, format!("{what} has to be true or false"));
                false
            }
        }
    }

    /// A mapping of texts, or a list of `KEY=VALUE`.
    pub fn labels(&mut self, node: &Node, what: &str) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::new();
        if let Kind::List(items) = &node.kind {
            for item in items {
                let text = self.text(item, what).unwrap_or_default();
                let (key, value) = text.split_once('=').unwrap_or((text, ""));
                labels.insert(key.to_owned(), value.to_owned());
            }
            return labels;
        }
        for (key, _, value) in self.entries(node, what) {
            let text = if value.is_null() { Some("") } else { self.text(value, what) };
            labels.extend(text.map(|text| (key.to_owned(), text.to_owned())));
        }
        labels
    }
}
