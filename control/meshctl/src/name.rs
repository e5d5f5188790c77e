//! References to objects, as arguments.

/// Refuses the empty text, which a script's unset variable gives: no object has it for a name.
pub fn reference(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("it is empty".to_owned()) } else { Ok(text.to_owned()) }
}
