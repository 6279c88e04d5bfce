//! Placeholder until the real binder lands: binds variables as label values.

use std::collections::BTreeMap;

/// Why a selector could not be bound.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A variable without a value.
    #[error("variable `${0}` has no value")]
    Unknown(String),
}

/// The selector with every `$name` replaced by its escaped value.
pub fn bind(text: &str, variables: &BTreeMap<String, String>) -> Result<String, Error> {
    let mut bound = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        bound.push_str(before);
        let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
        let (name, tail) = after.split_at(end);
        let value = variables.get(name).ok_or_else(|| Error::Unknown(name.to_owned()))?;
        bound.push_str(&value.replace('\\', "\\\\").replace('"', "\\\""));
        rest = tail;
    }
    bound.push_str(rest);
    Ok(bound)
}
