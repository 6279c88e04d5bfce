//! From the spanned tree to typed values, collecting problems and going on.

use std::collections::BTreeMap;

use super::codes;
use super::diagnostic::{Diagnostic, Diagnostics, Severity};
use super::file::{Key, Node, Span, Value};
use super::plan::Location;
use super::quantity;
use crate::units::{Millis, Weight, shown};

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Spanned<T> {
    /// The value.
    pub value: T,
    /// Where it stands.
    pub span: Span,
}

/// Decodes one file: its name, and the problems found so far.
#[derive(Debug)]
pub struct Decoder {
    /// The file as given.
    pub file: String,
    /// What was found.
    pub problems: Diagnostics,
}

impl Decoder {
    /// Nothing found yet.
    #[must_use]
    pub fn new(file: &str) -> Self {
        Self { file: file.to_owned(), problems: Diagnostics::default() }
    }

    /// Records a problem.
    pub fn report(
        &mut self,
        severity: Severity,
        code: &'static str,
        span: Span,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        let location = span.location(&self.file);
        let (message, mut help): (String, String) = (message.into(), help.into());
        if help.is_empty() {
            help = format!("`tidegate explain {code}` says what is expected");
        }
        self.problems.push(Diagnostic {
            code,
            severity,
            message,
            help,
            location,
            length: span.length,
        });
    }

    /// Records an error.
    pub fn error(
        &mut self,
        code: &'static str,
        span: Span,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.report(Severity::Error, code, span, message, help);
    }

    /// A place in this file.
    #[must_use]
    pub fn at(&self, span: Span) -> Location {
        span.location(&self.file)
    }

    /// A mapping.
    pub fn fields<'n>(&mut self, node: &'n Node) -> Option<Fields<'n>> {
        match &node.value {
            Value::Map(entries) => Some(Fields::new(node.span, entries)),
            _ => self.wrong(node, "a mapping (`key: value`)"),
        }
    }

    /// A list.
    pub fn list<'n>(&mut self, node: &'n Node) -> Option<&'n [Node]> {
        match &node.value {
            Value::List(list) => Some(list),
            _ => self.wrong(node, "a list"),
        }
    }

    /// A list whose bad items are reported and left out.
    pub fn each<T>(
        &mut self,
        node: &Node,
        mut item: impl FnMut(&mut Self, &Node) -> Option<T>,
    ) -> Option<Vec<T>> {
        Some(self.list(node)?.iter().filter_map(|node| item(self, node)).collect())
    }

    /// A text that is not empty.
    pub fn text(&mut self, node: &Node) -> Option<String> {
        match &node.value {
            Value::Scalar { text, .. } if !node.is_null() && !text.trim().is_empty() => {
                Some(text.clone())
            }
            _ => self.wrong(node, "a text"),
        }
    }

    /// A text and where it stands.
    pub fn spanned_text(&mut self, node: &Node) -> Option<Spanned<String>> {
        self.text(node).map(|value| Spanned { value, span: node.span })
    }

    /// A text that `parse` takes; its error is the message.
    pub fn parsed<T, E: std::fmt::Display>(
        &mut self,
        node: &Node,
        code: &'static str,
        help: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = self.text(node)?;
        parse(&text).map_err(|error| self.error(code, node.span, error.to_string(), help)).ok()
    }

    /// A name of one of the types in [`crate::units`].
    pub fn name<T: std::str::FromStr<Err = crate::units::Error>>(
        &mut self,
        node: &Node,
    ) -> Option<T> {
        self.parsed(node, codes::INVALID_NAME, "", str::parse)
    }

    /// A duration.
    pub fn duration(&mut self, node: &Node) -> Option<Millis> {
        self.parsed(node, codes::INVALID_DURATION, quantity::DURATION_HELP, quantity::duration)
    }

    /// A duration that is not zero.
    pub fn positive(&mut self, node: &Node) -> Option<Millis> {
        let time = self.duration(node)?;
        if time > Millis::ZERO {
            return Some(time);
        }
        self.error(
            codes::INVALID_DURATION,
            node.span,
            "a time of zero does nothing here",
            quantity::DURATION_HELP,
        );
        None
    }

    /// A weight.
    pub fn weight(&mut self, node: &Node) -> Option<Weight> {
        self.parsed(node, codes::INVALID_WEIGHT, quantity::WEIGHT_HELP, quantity::weight)
    }

    /// A whole number between two ends, both included.
    pub fn whole(&mut self, node: &Node, least: u64, most: u64) -> Option<u64> {
        let Value::Scalar { text, plain: true } = &node.value else {
            return self.wrong(node, "a whole number");
        };
        let digits = text.replace('_', "");
        match digits.parse::<u64>() {
            Ok(number) if (least..=most).contains(&number) => Some(number),
            _ if digits.parse::<f64>().is_err() => self.wrong(node, "a whole number"),
            _ => {
                let message =
                    format!("`{}` is not a whole number from {least} to {most}", shown(text));
                self.error(codes::INVALID_VALUE, node.span, message, "");
                None
            }
        }
    }

    /// As [`Self::whole`] for a number that fits 32 bits.
    pub fn count(&mut self, node: &Node, least: u32, most: u32) -> Option<u32> {
        self.whole(node, least.into(), most.into()).and_then(|number| u32::try_from(number).ok())
    }

    /// A finite number.
    pub fn number(&mut self, node: &Node) -> Option<f64> {
        match &node.value {
            Value::Scalar { text, plain: true } => match quantity::number(text) {
                Ok(number) => Some(number),
                Err(_) => self.wrong(node, "a number"),
            },
            _ => self.wrong(node, "a number"),
        }
    }

    /// `true` or `false`.
    pub fn truth(&mut self, node: &Node) -> Option<bool> {
        match &node.value {
            Value::Scalar { text, plain: true } if text == "true" => Some(true),
            Value::Scalar { text, plain: true } if text == "false" => Some(false),
            _ => self.wrong(node, "`true` or `false`"),
        }
    }

    /// One of a few words.
    pub fn choice<T: Copy>(&mut self, node: &Node, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text(node)?;
        let found = choices.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
            let help = nearest(&text, words.iter().copied()).map_or_else(
                || format!("expected one of: {}", words.join(", ")),
                |word| format!("did you mean `{word}`? expected one of: {}", words.join(", ")),
            );
            self.error(
                codes::INVALID_VALUE,
                node.span,
                format!("`{}` is not known here", shown(&text)),
                help,
            );
        }
        found
    }

    /// A mapping of texts.
    pub fn texts(&mut self, node: &Node) -> Option<BTreeMap<String, String>> {
        let entries = match &node.value {
            Value::Map(entries) => entries,
            _ => return self.wrong(node, "a mapping of texts"),
        };
        let pair = |(key, node): &(Key, Node)| Some((key.text.clone(), self.text(node)?));
        Some(entries.iter().filter_map(pair).collect())
    }

    fn wrong<T>(&mut self, node: &Node, expected: &str) -> Option<T> {
        let found = match &node.value {
            _ if node.is_null() => "nothing".to_owned(),
            Value::Scalar { text, .. } => format!("`{}`", shown(text)),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a mapping".to_owned(),
        };
        self.error(codes::WRONG_TYPE, node.span, format!("expected {expected}, found {found}"), "");
        None
    }
}

/// The keys of one mapping. Whatever was not asked for by the time of [`Fields::finish`] is unknown.
#[derive(Debug)]
pub struct Fields<'n> {
    /// Where the mapping starts.
    pub span: Span,
    entries: &'n [(Key, Node)],
    known: Vec<&'static str>,
}

impl<'n> Fields<'n> {
    /// The entries of a mapping at `span`.
    #[must_use]
    pub fn new(span: Span, entries: &'n [(Key, Node)]) -> Self {
        Self { span, entries, known: Vec::new() }
    }

    /// The node of a key, if it is there.
    pub fn take(&mut self, key: &'static str) -> Option<&'n Node> {
        self.known.push(key);
        self.entries.iter().find(|(entry, _)| entry.text == key).map(|(_, node)| node)
    }

    /// The key's decoded value; `None` when it is missing or wrong (which is then reported).
    pub fn get<T>(
        &mut self,
        decoder: &mut Decoder,
        key: &'static str,
        decode: impl FnOnce(&mut Decoder, &'n Node) -> Option<T>,
    ) -> Option<T> {
        self.take(key).and_then(|node| decode(decoder, node))
    }

    /// As [`Self::get`], with an error when the key is missing.
    pub fn require<T>(
        &mut self,
        decoder: &mut Decoder,
        key: &'static str,
        decode: impl FnOnce(&mut Decoder, &'n Node) -> Option<T>,
    ) -> Option<T> {
        let node = self.take(key);
        if node.is_none() {
            decoder.error(codes::MISSING_KEY, self.span, format!("`{key}` is missing here"), "");
        }
        node.and_then(|node| decode(decoder, node))
    }

    /// Where the key itself stands, if it is there.
    #[must_use]
    pub fn key_span(&self, key: &str) -> Option<Span> {
        self.entries.iter().find(|(entry, _)| entry.text == key).map(|(entry, _)| entry.span)
    }

    /// Refuses keys that are planned and not built yet, each with what to do instead.
    pub fn refuse(&mut self, decoder: &mut Decoder, keys: &[(&'static str, &str)]) {
        for (key, help) in keys {
            self.known.push(key);
            if let Some(span) = self.key_span(key) {
                decoder.error(
                    codes::NOT_AVAILABLE,
                    span,
                    format!("`{key}` is not available yet"),
                    *help,
                );
            }
        }
    }

    /// Reports every key that was not asked for.
    pub fn finish(self, decoder: &mut Decoder) {
        for (key, _) in
            self.entries.iter().filter(|(key, _)| !self.known.contains(&key.text.as_str()))
        {
            let help = nearest(&key.text, self.known.iter().copied()).map_or_else(
                || format!("expected one of: {}", self.known.join(", ")),
                |known| format!("did you mean `{known}`?"),
            );
            decoder.error(
                codes::UNKNOWN_KEY,
                key.span,
                format!("unknown key `{}`", shown(&key.text)),
                help,
            );
        }
    }
}

/// The word that `text` most likely was meant to be; `None` when nothing is near.
#[must_use]
pub fn nearest<'a>(text: &str, words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if text.len() > 80 {
        return None;
    }
    let limit = (text.chars().count() / 3).max(1);
    let near = |word: &'a str| {
        Some((distance(text, word), word)).filter(|(distance, _)| *distance <= limit)
    };
    words.into_iter().filter_map(near).min_by_key(|(distance, _)| *distance).map(|(_, word)| word)
}

/// Changed, added, missing and swapped characters between two words (optimal string alignment).
fn distance(left: &str, right: &str) -> usize {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, r) in right.iter().enumerate() {
            let replaced = last[j] + usize::from(l != r);
            let mut best = replaced.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *l == right[j - 1] && left[i - 1] == *r {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_the_one_that_was_meant() {
        let words = ["validation_criteria", "regions", "duration"];
        assert_eq!(nearest("validation_criterai", words), Some("validation_criteria"));
        assert_eq!(nearest("region", words), Some("regions"));
        assert_eq!(nearest("durtaion", words), Some("duration"));
        assert_eq!(nearest("weight", words), None);
        assert_eq!(
            (distance("ab", "ba"), distance("", "abc"), distance("kitten", "sitting")),
            (1, 3, 3)
        );
    }
}
