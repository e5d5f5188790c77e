//! Does what a template says.

use serde_json::Value;

use super::{
    TemplateError, functions,
    functions::{is_true, text},
    parse::{Command, Node, Operand, Pipeline},
};

/// See [`super::Template::fill`].
pub(super) fn fill(
    nodes: &[Node],
    value: &Value,
    shown: fn(&str) -> String,
) -> Result<String, TemplateError> {
    let mut run = Run { variables: vec![(String::new(), value.clone())], shown, out: String::new() };
    run.nodes(nodes, value)?;
    Ok(run.out)
}

struct Run {
    /// The newest last; the first one is `$`.
    variables: Vec<(String, Value)>,
    shown: fn(&str) -> String,
    out: String,
}

impl Run {
    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<(), TemplateError> {
        // Variables end with their block.
        let outside = self.variables.len();
        for node in nodes {
            self.node(node, dot)?;
        }
        self.variables.truncate(outside);
        Ok(())
    }

    fn node(&mut self, node: &Node, dot: &Value) -> Result<(), TemplateError> {
        match node {
            Node::Text(text) => self.out.push_str(text),
            Node::Print(pipeline) => {
                let value = self.value(pipeline, dot)?;
                self.out.push_str(&(self.shown)(&text(&value)));
            }
            Node::Set(name, pipeline) => {
                let value = self.value(pipeline, dot)?;
                self.variables.push((name.clone(), value));
            }
            Node::If { cases, otherwise } => {
                for (condition, body) in cases {
                    if is_true(&self.value(condition, dot)?) {
                        return self.nodes(body, dot);
                    }
                }
                self.nodes(otherwise, dot)?;
            }
            Node::With { value, body, otherwise } => {
                let value = self.value(value, dot)?;
                match is_true(&value) {
                    true => self.nodes(body, &value)?,
                    false => self.nodes(otherwise, dot)?,
                }
            }
            Node::Range { names, over, body, otherwise } => {
                let items = items(self.value(over, dot)?)?;
                if items.is_empty() {
                    return self.nodes(otherwise, dot);
                }
                for (key, item) in items {
                    let outside = self.variables.len();
                    // As in Go: one name is the item, of two the first is its place.
                    let values = [key, item.clone()];
                    let values = values.into_iter().skip(2_usize.saturating_sub(names.len()));
                    self.variables.extend(names.iter().cloned().zip(values));
                    self.nodes(body, &item)?;
                    self.variables.truncate(outside);
                }
            }
        }
        Ok(())
    }

    fn value(&self, pipeline: &Pipeline, dot: &Value) -> Result<Value, TemplateError> {
        let mut last = None;
        for command in pipeline {
            last = Some(match command {
                Command::Value(operand) => self.operand(operand, dot)?,
                Command::Call(name, operands) => {
                    let operands = operands.iter().map(|operand| self.operand(operand, dot));
                    let mut operands = operands.collect::<Result<Vec<_>, _>>()?;
                    operands.extend(last.take());
                    functions::call(name, &operands)?
                }
            });
        }
        Ok(last.unwrap_or_default())
    }

    fn operand(&self, operand: &Operand, dot: &Value) -> Result<Value, TemplateError> {
        match operand {
            Operand::Literal(value) => Ok(value.clone()),
            Operand::Fields(path) => walk(dot, path),
            Operand::Variable(name, path) => {
                let value = self.variables.iter().rev().find(|(known, _)| known == name);
                walk(&value.ok_or_else(|| TemplateError::Variable(name.clone()))?.1, path)
            }
            Operand::Group(pipeline, path) => walk(&self.value(pipeline, dot)?, path),
        }
    }
}

fn walk(value: &Value, path: &[String]) -> Result<Value, TemplateError> {
    let mut value = value;
    for field in path {
        value = match value {
            // Nothing has no parts.
            Value::Null => return Ok(Value::Null),
            Value::Object(fields) => {
                let same = |key: &&String| spelling(key) == spelling(field);
                let key = fields.keys().find(|key| *key == field).or_else(|| fields.keys().find(same));
                key.and_then(|key| fields.get(key)).ok_or_else(|| TemplateError::Field {
                    field: field.clone(),
                    there: fields.keys().map(|key| format!(".{key}")).collect::<Vec<_>>().join(", "),
                })?
            }
            other => {
                return Err(TemplateError::NoFields { field: field.clone(), value: other.to_string() });
            }
        };
    }
    Ok(value.clone())
}

/// What Go's spelling of a field and JSON's have in common.
fn spelling(name: &str) -> String {
    name.chars().filter(|c| *c != '_').flat_map(char::to_lowercase).collect()
}

/// What a range goes through, with the places.
fn items(value: Value) -> Result<Vec<(Value, Value)>, TemplateError> {
    Ok(match value {
        Value::Null => Vec::new(),
        Value::Array(items) => {
            items.into_iter().enumerate().map(|(place, item)| (place.into(), item)).collect()
        }
        Value::Object(fields) => fields.into_iter().map(|(key, item)| (key.into(), item)).collect(),
        other => return Err(TemplateError::NoList(other.to_string())),
    })
}
