//! YAML with positions: bounded reading into a tree in which every value knows where it stands.
//!
//! No anchors, aliases, merge keys, tags or second documents, no key twice: what stands in the file is what runs.

use std::io::Read;
use std::path::Path;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span as YamlSpan};

use super::codes;
use super::diagnostic::{Diagnostic, Diagnostics, Severity};
use super::plan::Location;
use crate::units::shown;

/// Largest file, in bytes.
pub const BYTES_MAX: usize = 1 << 20;
/// Deepest nesting of lists and mappings.
pub const DEPTH_MAX: usize = 32;
/// Most scalars, lists and mappings.
pub const NODES_MAX: usize = 50_000;

/// Where a value stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// From 1.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
    /// Characters to underline, at least 1.
    pub length: u32,
}

impl Span {
    /// The first character of a file.
    pub const START: Self = Self { line: 1, column: 1, length: 1 };

    /// As a place in `file`.
    #[must_use]
    pub fn location(self, file: &str) -> Location {
        Location { file: file.to_owned(), line: self.line, column: self.column }
    }
}

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Where it starts.
    pub span: Span,
    /// What it is.
    pub value: Value,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Text, number, truth value or nothing, as written.
    Scalar {
        /// The text, quotes and folding undone.
        text: String,
        /// Written without quotes, so it may be a number, a truth value or null.
        plain: bool,
    },
    /// A list.
    List(Vec<Node>),
    /// A mapping, in the order of the file, each key once.
    Map(Vec<(Key, Node)>),
}

/// Key of a mapping.
#[derive(Debug, Clone, PartialEq)]
pub struct Key {
    /// Where it starts.
    pub span: Span,
    /// The key.
    pub text: String,
}

impl Node {
    /// Left empty, `~` or `null`.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null"))
    }
}

/// Reads a file of at most [`BYTES_MAX`]. The error is the problem to show.
pub fn read(path: &Path) -> Result<String, Diagnostic> {
    let file = shown_path(path);
    let help = "the file has to be readable, UTF-8 and of a size that people read";
    let problem =
        |code, message: String| problem(code, &file, Span::START, message, help.to_owned());
    let unreadable = |error: std::io::Error| {
        problem(codes::UNREADABLE, format!("cannot read this file: {error}"))
    };
    let opened = std::fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    opened.take(BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() > BYTES_MAX {
        return Err(problem(
            codes::TOO_LARGE,
            format!("the file is larger than {BYTES_MAX} bytes"),
        ));
    }
    String::from_utf8(bytes)
        .map_err(|_| problem(codes::UNREADABLE, "the file is not UTF-8 text".to_owned()))
}

/// A path as text for messages and locations.
#[must_use]
pub fn shown_path(path: &Path) -> String {
    path.to_string_lossy().chars().filter(|c| !c.is_control()).collect()
}

/// Parses one YAML document. With a problem in the YAML itself there is no tree, because every later message would
/// be a consequence of it; keys that stand twice are reported and the first one is kept.
#[must_use]
pub fn parse(file: &str, text: &str) -> (Option<Node>, Diagnostics) {
    let mut reader = Reader { file, problems: Diagnostics::default(), nodes: 0 };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let node = reader.document(text).map_err(|fatal| reader.problems.push(*fatal)).ok();
    (node, reader.problems)
}

/// Parses YAML into a type of another owner (such as Envoy's route configuration), within the same bounds.
///
/// serde_yaml reads it only after [`parse`] found it small, shallow and free of aliases.
pub fn parse_as<T: serde::de::DeserializeOwned>(file: &str, text: &str) -> Result<T, Diagnostics> {
    let (node, mut problems) = parse(file, text);
    if node.is_none() || problems.has_errors() {
        return Err(problems);
    }
    serde_yaml::from_str(text).map_err(|error| {
        let (line, column) = error.location().map_or((1, 1), |at| (at.line(), at.column()));
        let span = Span { line: small(line), column: small(column), length: 1 };
        problems.push(problem(
            codes::WRONG_TYPE,
            file,
            span,
            shown(&error.to_string()),
            "the documentation of its owner says what may stand here".to_owned(),
        ));
        problems
    })
}

fn problem(
    code: &'static str,
    file: &str,
    span: Span,
    message: String,
    help: String,
) -> Diagnostic {
    let location = span.location(file);
    Diagnostic { code, severity: Severity::Error, message, help, location, length: span.length }
}

/// Help for what is too large.
const SMALLER: &str = "nothing that people write needs this much; several files may share the work";
/// Help for what is not YAML.
const QUOTE: &str = "look for a missing quote, bracket or colon at this place or right before it";

struct Reader<'a> {
    file: &'a str,
    problems: Diagnostics,
    nodes: usize,
}

/// A problem after which nothing in the file can be trusted.
type Fatal = Box<Diagnostic>;
type Events<'a> = Parser<'a, saphyr_parser::StrInput<'a>>;

impl Reader<'_> {
    fn fatal(&self, code: &'static str, span: Span, message: &str, help: &str) -> Fatal {
        Box::new(problem(code, self.file, span, message.to_owned(), help.to_owned()))
    }

    fn document(&mut self, text: &str) -> Result<Node, Fatal> {
        if text.len() > BYTES_MAX {
            return Err(self.fatal(
                codes::TOO_LARGE,
                Span::START,
                &format!("larger than {BYTES_MAX} bytes"),
                SMALLER,
            ));
        }
        self.depth_of_brackets(text)?;
        let mut events = Parser::new_from_str(text);
        let mut root = None;
        loop {
            let (event, span) = self.next(&mut events)?;
            match event {
                Event::StreamStart | Event::DocumentEnd | Event::Nothing => {}
                Event::DocumentStart(_) if root.is_some() => {
                    let help = "put each document into a file of its own";
                    return Err(self.fatal(
                        codes::UNSUPPORTED_YAML,
                        at(span),
                        "a second document in one file",
                        help,
                    ));
                }
                Event::DocumentStart(_) => {
                    let (event, span) = self.next(&mut events)?;
                    root = Some(self.node(&mut events, event, span, 0)?);
                }
                Event::StreamEnd => break,
                _ => return Err(self.fatal(codes::SYNTAX, at(span), "unexpected content", QUOTE)),
            }
        }
        root.ok_or_else(|| {
            self.fatal(
                codes::SYNTAX,
                Span::START,
                "the file is empty",
                "`tidegate schema` shows what may stand in it",
            )
        })
    }

    /// The scanner keeps a stack of its own for `[` and `{`: bound it before it runs.
    fn depth_of_brackets(&self, text: &str) -> Result<(), Fatal> {
        let (mut run, mut line, mut column) = (0_usize, 1, 0);
        for c in text.chars() {
            column += 1;
            match c {
                '\n' => (line, column) = (line + 1, 0),
                '[' | '{' => run += 1,
                ' ' | '\t' | '\r' | '-' | '?' | ':' => continue,
                _ => run = 0,
            }
            if run > 4 * DEPTH_MAX {
                let span = Span { line: small(line), column: small(column), length: 1 };
                return Err(self.too_deep(span));
            }
        }
        Ok(())
    }

    fn too_deep(&self, span: Span) -> Fatal {
        self.fatal(
            codes::TOO_LARGE,
            span,
            &format!("nested deeper than {DEPTH_MAX} levels"),
            SMALLER,
        )
    }

    fn next<'t>(&self, events: &mut Events<'t>) -> Result<(Event<'t>, YamlSpan), Fatal> {
        match events.next_event() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => {
                let span = from_marker(*error.marker(), 1);
                Err(self.fatal(
                    codes::SYNTAX,
                    span,
                    &format!("not YAML: {}", shown(error.info())),
                    QUOTE,
                ))
            }
            None => Err(self.fatal(codes::SYNTAX, Span::START, "the file ends too early", QUOTE)),
        }
    }

    fn node<'t>(
        &mut self,
        events: &mut Events<'t>,
        event: Event<'t>,
        span: YamlSpan,
        depth: usize,
    ) -> Result<Node, Fatal> {
        self.nodes += 1;
        if depth > DEPTH_MAX {
            return Err(self.too_deep(at(span)));
        }
        if self.nodes > NODES_MAX {
            return Err(self.fatal(
                codes::TOO_LARGE,
                at(span),
                &format!("more than {NODES_MAX} values"),
                SMALLER,
            ));
        }
        let span_of = at(span);
        let plainly = |anchor: usize, tagged: bool, reader: &Self| match (anchor, tagged) {
            (0, false) => Ok(()),
            (_, true) => {
                Err(reader.unsupported(span_of, "a tag (`!...`)", "write the value without it"))
            }
            _ => Err(reader.unsupported(
                span_of,
                "an anchor (`&...`)",
                "write the value out where it is used",
            )),
        };
        let value = match event {
            Event::Scalar(text, style, anchor, tag) => {
                plainly(anchor, tag.is_some(), self)?;
                if text.contains('\0') {
                    return Err(self.fatal(
                        codes::SYNTAX,
                        span_of,
                        "a NUL character",
                        "take it out; it stands for nothing here",
                    ));
                }
                Value::Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain }
            }
            Event::SequenceStart(anchor, tag) => {
                plainly(anchor, tag.is_some(), self)?;
                Value::List(self.list(events, depth)?)
            }
            Event::MappingStart(anchor, tag) => {
                plainly(anchor, tag.is_some(), self)?;
                Value::Map(self.map(events, depth)?)
            }
            Event::Alias(_) => {
                return Err(self.unsupported(span_of, "an alias (`*...`)", "write the value out"));
            }
            _ => return Err(self.fatal(codes::SYNTAX, span_of, "a value is missing", QUOTE)),
        };
        Ok(Node { span: span_of, value })
    }

    fn unsupported(&self, span: Span, what: &str, help: &str) -> Fatal {
        self.fatal(codes::UNSUPPORTED_YAML, span, &format!("{what} is not allowed here"), help)
    }

    fn list(&mut self, events: &mut Events<'_>, depth: usize) -> Result<Vec<Node>, Fatal> {
        let mut list = Vec::new();
        loop {
            let (event, span) = self.next(events)?;
            if event == Event::SequenceEnd {
                return Ok(list);
            }
            list.push(self.node(events, event, span, depth + 1)?);
        }
    }

    fn map(&mut self, events: &mut Events<'_>, depth: usize) -> Result<Vec<(Key, Node)>, Fatal> {
        let mut map: Vec<(Key, Node)> = Vec::new();
        let mut seen = std::collections::BTreeSet::new();
        loop {
            let (event, span) = self.next(events)?;
            if event == Event::MappingEnd {
                return Ok(map);
            }
            let key = self.node(events, event, span, depth + 1)?;
            let (event, span) = self.next(events)?;
            let value = self.node(events, event, span, depth + 1)?;
            let Value::Scalar { text, .. } = key.value else {
                return Err(self.unsupported(
                    key.span,
                    "a list or mapping as a key",
                    "keys are names",
                ));
            };
            if text == "<<" {
                return Err(self.unsupported(
                    key.span,
                    "a merge key (`<<`)",
                    "write the values out",
                ));
            }
            if seen.insert(text.clone()) {
                map.push((Key { span: key.span, text }, value));
            } else {
                let message = format!("the key `{}` stands here a second time", shown(&text));
                let help = "remove one of the two".to_owned();
                self.problems.push(problem(
                    codes::DUPLICATE_KEY,
                    self.file,
                    key.span,
                    message,
                    help,
                ));
            }
        }
    }
}

fn at(span: YamlSpan) -> Span {
    let one_line = span.start.line() == span.end.line();
    let length = if one_line { span.end.col().saturating_sub(span.start.col()) } else { 1 };
    from_marker(span.start, length.max(1))
}

/// The parser counts lines from 1 and columns from 0.
fn from_marker(marker: Marker, length: usize) -> Span {
    Span {
        line: small(marker.line().max(1)),
        column: small(marker.col() + 1),
        length: small(length),
    }
}

fn small(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> (&'static str, u32, u32) {
        let (node, problems) = parse("f.yaml", text);
        assert!(node.is_none() || problems.as_slice()[0].code == codes::DUPLICATE_KEY, "{node:?}");
        let first = &problems.as_slice()[0];
        (first.code, first.location.line, first.location.column)
    }

    #[test]
    fn every_value_knows_where_it_stands() {
        let (node, problems) = parse("f.yaml", "a: 1\nb:\n  - \"x\"\n  - {c: d}\n");
        assert!(problems.is_empty());
        let Some(Node { value: Value::Map(map), .. }) = node else { panic!() };
        assert_eq!(map[0].1.span, Span { line: 1, column: 4, length: 1 });
        let Value::List(list) = &map[1].1.value else { panic!() };
        assert_eq!(list[0].span, Span { line: 3, column: 5, length: 3 });
        let Value::Map(inner) = &list[1].value else { panic!() };
        assert_eq!((inner[0].0.span.line, inner[0].0.span.column), (4, 6));
    }

    #[test]
    fn what_expands_behind_the_readers_back_is_refused() {
        assert_eq!(code("a: &x 1\nb: *x\n"), (codes::UNSUPPORTED_YAML, 1, 4));
        assert_eq!(code("a: 1\nb: *x\n").0, codes::SYNTAX);
        assert_eq!(code("a: !!python/object 1\n").0, codes::UNSUPPORTED_YAML);
        assert_eq!(code("a: !x [1]\n").0, codes::UNSUPPORTED_YAML);
        assert_eq!(code("<<: {a: 1}\n").0, codes::UNSUPPORTED_YAML);
        assert_eq!(code("a: 1\n---\nb: 2\n").0, codes::UNSUPPORTED_YAML);
        assert_eq!(code("? [a]\n: 1\n").0, codes::UNSUPPORTED_YAML);
        assert_eq!(code("a: 1\nb: 2\na: 3\n"), (codes::DUPLICATE_KEY, 3, 1));
    }

    #[test]
    fn hostile_files_end_with_a_message() {
        let bomb = "a: &a [x,x,x,x]\nb: &b [*a,*a,*a,*a]\nc: [*b,*b,*b]\n";
        assert_eq!(code(bomb).0, codes::UNSUPPORTED_YAML);
        assert_eq!(code(&"[".repeat(100_000)).0, codes::TOO_LARGE);
        assert!([codes::TOO_LARGE, codes::SYNTAX].contains(&code(&"{a: ".repeat(100_000)).0));
        assert!([codes::TOO_LARGE, codes::SYNTAX].contains(&code(&"- ".repeat(10_000)).0));
        let nested: String = (0..200).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
        assert_eq!(code(&nested).0, codes::TOO_LARGE);
        assert_eq!(code(&format!("[{}]", "1,".repeat(60_000))).0, codes::TOO_LARGE);
        assert_eq!(code(&format!("a: {}", "x".repeat(2 << 20))).0, codes::TOO_LARGE);
        assert_eq!(code("a: \"\\0\"\n").0, codes::SYNTAX);
        for text in [
            "",
            "\0",
            "a: b: c",
            "\t",
            "a: [",
            "\"",
            "a: \"x\n",
            "- a\nb: 1",
            "%",
            "---",
            "...",
            "!",
            "&",
            "*",
            "|",
            "? ",
            ": ",
        ] {
            let (node, problems) = parse("f.yaml", text);
            assert!(node.is_some() || problems.has_errors(), "{text:?}");
        }
    }

    #[test]
    fn other_owners_types_are_read_within_the_same_bounds() {
        let numbers: Vec<u8> = parse_as("f.yaml", "[1, 2]").unwrap();
        assert_eq!(numbers, [1, 2]);
        let problems = parse_as::<Vec<u8>>("f.yaml", "- 1\n- x\n").unwrap_err();
        assert_eq!(problems.as_slice()[0].code, codes::WRONG_TYPE);
        assert!(parse_as::<Vec<u8>>("f.yaml", "&a [1]").is_err());
    }
}
