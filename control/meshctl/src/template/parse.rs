//! From text to what is to be done.

use serde_json::Value;

use super::{TemplateError, functions};

/// How many parentheses and blocks may be in one another.
const DEEPEST: usize = 32;

/// A part of a template.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    Text(String),
    Print(Pipeline),
    Set(String, Pipeline),
    If { cases: Vec<(Pipeline, Vec<Node>)>, otherwise: Vec<Node> },
    With { value: Pipeline, body: Vec<Node>, otherwise: Vec<Node> },
    Range { names: Vec<String>, over: Pipeline, body: Vec<Node>, otherwise: Vec<Node> },
}

/// Commands, each given what the one before it answers.
pub(super) type Pipeline = Vec<Command>;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Command {
    Value(Operand),
    Call(&'static str, Vec<Operand>),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Operand {
    Literal(Value),
    /// Fields of the present value; none for itself.
    Fields(Vec<String>),
    /// Of a variable; the empty name is the whole.
    Variable(String, Vec<String>),
    Group(Pipeline, Vec<String>),
}

/// Reads a whole template.
pub(super) fn parse(text: &str) -> Result<Vec<Node>, TemplateError> {
    let mut parts = divide(text)?;
    parts.reverse();
    let mut reader = Reader { parts, depth: 0 };
    match reader.block()? {
        (nodes, None) => Ok(nodes),
        (_, Some(End::End)) => Err(TemplateError::NoBlock("end")),
        (_, Some(End::Else(_))) => Err(TemplateError::NoBlock("else")),
    }
}

/// The name of the first field that a part of a template shows.
pub(super) fn first_field(node: &Node) -> Option<&str> {
    let Node::Print(pipeline) = node else { return None };
    pipeline_field(pipeline)
}

fn pipeline_field(pipeline: &Pipeline) -> Option<&str> {
    pipeline.iter().find_map(|command| match command {
        Command::Value(operand) => field(operand),
        Command::Call(_, operands) => operands.iter().find_map(field),
    })
}

fn field(operand: &Operand) -> Option<&str> {
    match operand {
        Operand::Literal(_) => None,
        Operand::Fields(path) | Operand::Variable(_, path) => path.last().map(String::as_str),
        Operand::Group(pipeline, path) => {
            path.last().map(String::as_str).or_else(|| pipeline_field(pipeline))
        }
    }
}

enum Part {
    Text(String),
    Action(String),
}

/// Into texts and actions. `{{-` and `-}}` take the white space before and after them.
fn divide(text: &str) -> Result<Vec<Part>, TemplateError> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let (trims, after) = match after.strip_prefix('-') {
            Some(more) if more.starts_with(char::is_whitespace) => (true, more),
            _ => (false, after),
        };
        parts.push(Part::Text(if trims { before.trim_end() } else { before }.to_owned()));
        let end = action_end(after)?;
        let (action, more) = (&after[..end], &after[end + 2..]);
        let (action, more) = match action.strip_suffix('-') {
            Some(action) if action.ends_with(char::is_whitespace) => (action, more.trim_start()),
            _ => (action, more),
        };
        if !action.trim_start().starts_with("/*") {
            parts.push(Part::Action(action.trim().to_owned()));
        }
        rest = more;
    }
    parts.push(Part::Text(rest.to_owned()));
    Ok(parts)
}

/// Where the `}}` is that is not within quotes.
fn action_end(text: &str) -> Result<usize, TemplateError> {
    if let Some(comment) = text.trim_start().strip_prefix("/*") {
        let place = comment.find("*/").ok_or(TemplateError::Open)?;
        let from = text.len() - comment.len() + place;
        return text[from..].find("}}").map(|end| from + end).ok_or(TemplateError::Open);
    }
    let (mut quote, mut escaped) = (None, false);
    for (place, c) in text.char_indices() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some('"') if c == '\\' => escaped = true,
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if c == '"' || c == '`' => quote = Some(c),
            None if text[place..].starts_with("}}") => return Ok(place),
            None => {}
        }
    }
    Err(if quote.is_some() { TemplateError::Quote(text.to_owned()) } else { TemplateError::Open })
}

enum End {
    End,
    /// With the condition of an `else if`.
    Else(Option<String>),
}

struct Reader {
    /// What is still to come, the next one last.
    parts: Vec<Part>,
    depth: usize,
}

impl Reader {
    /// Up to the end of the block, or of all.
    fn block(&mut self) -> Result<(Vec<Node>, Option<End>), TemplateError> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(TemplateError::Deep);
        }
        let mut nodes = Vec::new();
        while let Some(part) = self.parts.pop() {
            let action = match part {
                Part::Text(text) if text.is_empty() => continue,
                Part::Text(text) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Part::Action(action) => action,
            };
            let (word, rest) = action.split_once(char::is_whitespace).unwrap_or((&action, ""));
            let node = match word {
                "end" => {
                    self.depth -= 1;
                    return Ok((nodes, Some(End::End)));
                }
                "else" => {
                    let condition = match rest.trim().split_once(char::is_whitespace) {
                        Some(("if", condition)) => Some(condition.to_owned()),
                        None if rest.trim().is_empty() => None,
                        _ => return Err(unexpected(rest.trim(), &action)),
                    };
                    self.depth -= 1;
                    return Ok((nodes, Some(End::Else(condition))));
                }
                "if" => self.condition(rest)?,
                "with" => {
                    let value = pipeline(rest)?;
                    let (body, otherwise) = self.body("with")?;
                    Node::With { value, body, otherwise }
                }
                "range" => {
                    let (names, over) = match rest.split_once(":=") {
                        Some((names, over)) => (variables(names, &action)?, over),
                        None => (Vec::new(), rest),
                    };
                    let over = pipeline(over)?;
                    let (body, otherwise) = self.body("range")?;
                    Node::Range { names, over, body, otherwise }
                }
                _ => match action.strip_prefix('$').and_then(|text| text.split_once(":=")) {
                    Some((name, value)) if name.trim().chars().all(is_word) => {
                        Node::Set(name.trim().to_owned(), pipeline(value)?)
                    }
                    _ => Node::Print(pipeline(&action)?),
                },
            };
            nodes.push(node);
        }
        Ok((nodes, None))
    }

    fn condition(&mut self, first: &str) -> Result<Node, TemplateError> {
        let mut cases = Vec::new();
        let mut condition = pipeline(first)?;
        loop {
            let (body, end) = self.block()?;
            cases.push((condition, body));
            match end.ok_or(TemplateError::Block("if"))? {
                End::End => return Ok(Node::If { cases, otherwise: Vec::new() }),
                End::Else(Some(next)) => condition = pipeline(&next)?,
                End::Else(None) => {
                    let otherwise = self.rest("if")?;
                    return Ok(Node::If { cases, otherwise });
                }
            }
        }
    }

    fn body(&mut self, kind: &'static str) -> Result<(Vec<Node>, Vec<Node>), TemplateError> {
        let (body, end) = self.block()?;
        let otherwise = match end.ok_or(TemplateError::Block(kind))? {
            End::End => Vec::new(),
            End::Else(None) => self.rest(kind)?,
            End::Else(Some(_)) => return Err(TemplateError::NoBlock("else if")),
        };
        Ok((body, otherwise))
    }

    /// What follows an else, to the end.
    fn rest(&mut self, kind: &'static str) -> Result<Vec<Node>, TemplateError> {
        match self.block()? {
            (nodes, Some(End::End)) => Ok(nodes),
            (_, Some(End::Else(_))) => Err(TemplateError::NoBlock("else")),
            (_, None) => Err(TemplateError::Block(kind)),
        }
    }
}

fn variables(text: &str, action: &str) -> Result<Vec<String>, TemplateError> {
    let name = |part: &str| match part.trim().strip_prefix('$') {
        Some(name) if !name.is_empty() && name.chars().all(is_word) => Ok(name.to_owned()),
        _ => Err(unexpected(part.trim(), action)),
    };
    text.split(',').map(name).collect()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn unexpected(found: &str, action: &str) -> TemplateError {
    TemplateError::Unexpected { found: found.to_owned(), action: action.trim().to_owned() }
}

fn pipeline(text: &str) -> Result<Pipeline, TemplateError> {
    let mut words = Words { action: text, rest: text };
    let pipeline = words.pipeline(0)?;
    match words.rest.trim() {
        "" => Ok(pipeline),
        more => Err(unexpected(more, text)),
    }
}

/// Reads within an action.
struct Words<'a> {
    action: &'a str,
    rest: &'a str,
}

impl<'a> Words<'a> {
    fn skip(&mut self) -> Option<char> {
        self.rest = self.rest.trim_start();
        self.rest.chars().next()
    }

    fn eat(&mut self, c: char) -> bool {
        let eaten = self.rest.strip_prefix(c);
        self.rest = eaten.unwrap_or(self.rest);
        eaten.is_some()
    }

    fn word(&mut self) -> &'a str {
        let end = self.rest.find(|c| !is_word(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    fn pipeline(&mut self, depth: usize) -> Result<Pipeline, TemplateError> {
        if depth > DEEPEST {
            return Err(TemplateError::Deep);
        }
        let mut commands = vec![self.command(depth)?];
        while self.skip() == Some('|') {
            self.eat('|');
            commands.push(self.command(depth)?);
        }
        Ok(commands)
    }

    fn command(&mut self, depth: usize) -> Result<Command, TemplateError> {
        let first = self.skip();
        if first.is_some_and(char::is_alphabetic) {
            let word = self.word();
            if let Some(literal) = constant(word) {
                return Ok(Command::Value(Operand::Literal(literal)));
            }
            let known = functions::NAMES.iter().find(|name| **name == word);
            let name = known.ok_or_else(|| TemplateError::Function(word.to_owned()))?;
            let mut operands = Vec::new();
            while !matches!(self.skip(), None | Some('|' | ')')) {
                operands.push(self.operand(depth)?);
            }
            return Ok(Command::Call(name, operands));
        }
        Ok(Command::Value(self.operand(depth)?))
    }

    fn operand(&mut self, depth: usize) -> Result<Operand, TemplateError> {
        match self.skip() {
            Some('.') => Ok(Operand::Fields(self.path())),
            Some('$') => {
                self.eat('$');
                let name = self.word().to_owned();
                Ok(Operand::Variable(name, self.path()))
            }
            Some('(') => {
                self.eat('(');
                let inner = self.pipeline(depth + 1)?;
                self.skip();
                if !self.eat(')') {
                    return Err(unexpected("(", self.action));
                }
                Ok(Operand::Group(inner, self.path()))
            }
            Some('"') => self.quoted(),
            Some('`') => {
                self.eat('`');
                let (text, rest) =
                    self.rest.split_once('`').ok_or_else(|| TemplateError::Quote(self.action.to_owned()))?;
                self.rest = rest;
                Ok(Operand::Literal(text.into()))
            }
            Some(c) if c.is_ascii_digit() || c == '-' => self.number(),
            Some(c) if c.is_alphabetic() => {
                let word = self.word();
                constant(word).map(Operand::Literal).ok_or_else(|| unexpected(word, self.action))
            }
            Some(c) => Err(unexpected(&c.to_string(), self.action)),
            None => Err(unexpected("", self.action)),
        }
    }

    /// `.a.b`; a dot alone is the value itself.
    fn path(&mut self) -> Vec<String> {
        let mut path = Vec::new();
        while self.eat('.') {
            match self.word() {
                "" => break,
                word => path.push(word.to_owned()),
            }
        }
        path
    }

    fn quoted(&mut self) -> Result<Operand, TemplateError> {
        let open = || TemplateError::Quote(self.action.to_owned());
        let mut escaped = false;
        let end = self.rest.char_indices().skip(1).find(|&(_, c)| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        let (end, _) = end.ok_or_else(open)?;
        let (text, rest) = self.rest.split_at(end + 1);
        // Tabs and ends of lines were put in for \t and \n; JSON wants them escaped.
        let text = text.replace('\t', "\\t").replace('\n', "\\n");
        let text: String = serde_json::from_str(&text).map_err(|_| open())?;
        self.rest = rest;
        Ok(Operand::Literal(text.into()))
    }

    fn number(&mut self) -> Result<Operand, TemplateError> {
        let more = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
        let end = self.rest.find(|c| !more(c)).unwrap_or(self.rest.len());
        let (text, rest) = self.rest.split_at(end);
        let value: Value = serde_json::from_str(text).map_err(|_| unexpected(text, self.action))?;
        self.rest = rest;
        Ok(Operand::Literal(value))
    }
}

fn constant(word: &str) -> Option<Value> {
    match word {
        "true" => Some(true.into()),
        "false" => Some(false.into()),
        "nil" => Some(Value::Null),
        _ => None,
    }
}
