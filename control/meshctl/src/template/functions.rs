//! The functions of templates: Go's own, and those that Docker adds.

use std::cmp::Ordering;

use serde_json::Value;

use super::TemplateError;

/// All of them.
pub(super) const NAMES: &[&str] = &[
    "and", "eq", "ge", "gt", "index", "join", "json", "le", "len", "lower", "lt", "ne", "not", "or", "pad",
    "print", "printf", "println", "replace", "split", "title", "trim", "truncate", "upper",
];

/// Calls `name`, one of [`NAMES`].
pub(super) fn call(name: &'static str, arguments: &[Value]) -> Result<Value, TemplateError> {
    let needs = |needs| TemplateError::Argument { function: name, needs };
    let one = || arguments.first().ok_or_else(|| needs("a value"));
    Ok(match name {
        "json" => serde_json::to_string(one()?).unwrap_or_default().into(),
        "upper" => text(one()?).to_uppercase().into(),
        "lower" => text(one()?).to_lowercase().into(),
        "title" => title(&text(one()?)).into(),
        "trim" => text(one()?).trim().into(),
        "len" => match one()? {
            Value::String(text) => text.chars().count().into(),
            Value::Array(items) => items.len().into(),
            Value::Object(fields) => fields.len().into(),
            Value::Null => 0.into(),
            _ => return Err(needs("a text or a list")),
        },
        "print" | "println" => {
            let all = arguments.iter().map(text).collect::<Vec<_>>().join(" ");
            (all + if name == "println" { "\n" } else { "" }).into()
        }
        "printf" => {
            printf(arguments).ok_or_else(|| needs("a format such as \"%-10s %d\" and its values"))?.into()
        }
        "join" => match arguments {
            [Value::Array(items), by] => items.iter().map(text).collect::<Vec<_>>().join(&text(by)).into(),
            [Value::Null, _] => "".into(),
            _ => return Err(needs("a list and what to put between its parts: {{join .List \", \"}}")),
        },
        "split" => match arguments {
            [whole, by] => text(whole).split(&text(by)).collect::<Vec<_>>().into(),
            _ => return Err(needs("a text and what divides it")),
        },
        "replace" => match arguments {
            [whole, old, new] => text(whole).replace(&text(old), &text(new)).into(),
            _ => return Err(needs("a text, what goes and what comes")),
        },
        "pad" => match (arguments, arguments.iter().map(number).collect::<Vec<_>>().as_slice()) {
            ([whole, _, _], [_, Some(before), Some(after)]) => {
                let (whole, before, after) = (text(whole), spaces(*before), spaces(*after));
                // As Docker's: nothing is put around nothing.
                if whole.is_empty() { whole } else { before + &whole + &after }.into()
            }
            _ => return Err(needs("a text and the numbers of blanks before and after it")),
        },
        "truncate" => match arguments {
            [whole, most] => {
                let most = number(most).ok_or_else(|| needs("a text and a length"))?;
                text(whole).chars().take(usize::try_from(most).unwrap_or(0)).collect::<String>().into()
            }
            _ => return Err(needs("a text and a length")),
        },
        "index" => {
            let mut value = one()?;
            for key in arguments.iter().skip(1) {
                value = inside(value, key).unwrap_or(&Value::Null);
            }
            value.clone()
        }
        "not" => (!is_true(one()?)).into(),
        "and" | "or" => {
            let decides = |value: &&Value| is_true(value) == (name == "or");
            arguments.iter().find(decides).or(arguments.last()).ok_or_else(|| needs("values"))?.clone()
        }
        "eq" => match arguments {
            [first, rest @ ..] if !rest.is_empty() => {
                rest.iter().any(|other| compare(first, other) == Some(Ordering::Equal)).into()
            }
            _ => return Err(needs("values to compare")),
        },
        _ => match arguments {
            [a, b] => {
                let order = compare(a, b);
                match name {
                    "ne" => order != Some(Ordering::Equal),
                    "lt" => order == Some(Ordering::Less),
                    "le" => matches!(order, Some(Ordering::Less | Ordering::Equal)),
                    "gt" => order == Some(Ordering::Greater),
                    _ => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
                }
                .into()
            }
            _ => return Err(needs("two values to compare")),
        },
    })
}

/// A value as a template prints it: texts as they are, nothing as nothing, lists as Go does.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(text).collect::<Vec<_>>().join(" ")),
        other => other.to_string(),
    }
}

/// Whether there is something: not nothing, zero, false or empty.
pub(super) fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(value) => value.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

fn inside<'a>(value: &'a Value, key: &Value) -> Option<&'a Value> {
    match value {
        Value::Array(items) => items.get(usize::try_from(number(key)?).ok()?),
        Value::Object(fields) => fields.get(&text(key)),
        _ => None,
    }
}

fn compare(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64()?.partial_cmp(&b.as_f64()?),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (a, b) => (a == b).then_some(Ordering::Equal),
    }
}

fn number(value: &Value) -> Option<i64> {
    value.as_i64()
}

/// No more than a line needs.
fn spaces(count: i64) -> String {
    " ".repeat(usize::try_from(count.clamp(0, 1000)).unwrap_or(0))
}

fn title(text: &str) -> String {
    let mut start = true;
    let mut title = String::new();
    for c in text.chars() {
        if start {
            title.extend(c.to_uppercase())
        } else {
            title.push(c)
        }
        start = c.is_whitespace();
    }
    title
}

/// `%s %v %d %q %%`, each with a width: `%10s`, `%-10s`.
fn printf(arguments: &[Value]) -> Option<String> {
    let [Value::String(format), values @ ..] = arguments else { return None };
    let mut values = values.iter();
    let mut out = String::new();
    let mut rest = format.as_str();
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let verb = after.find(|c: char| !c.is_ascii_digit() && c != '-')?;
        let (width, more) = after.split_at(verb);
        let letter = more.chars().next()?;
        rest = &more[letter.len_utf8()..];
        if letter == '%' {
            out.push('%');
            continue;
        }
        let value = values.next()?;
        let shown = match letter {
            's' | 'v' => text(value),
            'd' => value.is_number().then(|| text(value))?,
            'q' => serde_json::to_string(&text(value)).ok()?,
            _ => return None,
        };
        let (left, width) = (width.starts_with('-'), width.trim_start_matches('-'));
        let width =
            if width.is_empty() { 0 } else { width.parse::<u16>().ok().filter(|width| *width <= 1000)? };
        let fill = " ".repeat(usize::from(width).saturating_sub(shown.chars().count()));
        out.push_str(&if left { shown + &fill } else { fill + &shown });
    }
    out.push_str(rest);
    Some(out)
}
