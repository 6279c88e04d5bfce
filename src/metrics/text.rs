//! The Prometheus text format, and what OpenMetrics adds that matters here (`# EOF`, exemplars).
//!
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>. Bounded in series and labels; bytes are bounded by
//! whoever reads them.

use std::collections::BTreeMap;

/// Most series of one endpoint.
const SERIES_MAX: usize = 20_000;
/// Most labels of one series.
const LABELS_MAX: usize = 64;

/// One line: a series and its newest sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// All labels, `__name__` included.
    pub labels: BTreeMap<String, String>,
    /// May be NaN or infinite.
    pub value: f64,
    /// The sample's own time in milliseconds, where the endpoint gives one.
    pub time_ms: Option<u64>,
}

/// Why a text cannot be read; never holds a piece of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not the text format.
    #[error("line {0} is not in the Prometheus text format")]
    Line(usize),
    /// Too many series.
    #[error("more than {SERIES_MAX} series")]
    Series,
    /// Not UTF-8.
    #[error("the answer is not UTF-8 text")]
    Utf8,
}

/// Every sample of the text; all or none.
pub fn parse(bytes: &[u8]) -> Result<Vec<Line>, Error> {
    let text = std::str::from_utf8(bytes).map_err(|_| Error::Utf8)?;
    let open_metrics = text.trim_end().ends_with("# EOF");
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_matches([' ', '\t', '\r']);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if found.len() == SERIES_MAX {
            return Err(Error::Series);
        }
        found.push(sample(line, open_metrics).ok_or(Error::Line(index + 1))?);
    }
    Ok(found)
}

fn sample(line: &str, open_metrics: bool) -> Option<Line> {
    let end = line.find(|c: char| c == '{' || c.is_whitespace())?;
    let (name, mut rest) = line.split_at(end);
    if !is_name(name, true) {
        return None;
    }
    let mut labels = BTreeMap::from([("__name__".to_owned(), name.to_owned())]);
    rest = rest.trim_start();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = labels_of(inside, &mut labels)?;
    }
    // An exemplar is no part of the sample.
    let rest = if open_metrics { rest.split(" # ").next()? } else { rest };
    let mut words = rest.split_whitespace();
    let value = number(words.next()?)?;
    let time_ms = match words.next() {
        None => None,
        Some(word) if open_metrics => Some(milliseconds(word.parse::<f64>().ok()? * 1_000.0)?),
        Some(word) => Some(u64::try_from(word.parse::<i64>().ok()?).ok()?),
    };
    if words.next().is_some() {
        return None;
    }
    Some(Line { labels, value, time_ms })
}

fn milliseconds(ms: f64) -> Option<u64> {
    (0.0..9.007e15).contains(&ms).then(|| ms.round() as u64)
}

/// Reads labels up to the closing brace and returns what follows it.
fn labels_of<'a>(text: &'a str, labels: &mut BTreeMap<String, String>) -> Option<&'a str> {
    let mut rest = text.trim_start();
    loop {
        if let Some(after) = rest.strip_prefix('}') {
            return Some(after);
        }
        let (name, after) = rest.split_once('=')?;
        let name = name.trim();
        if !is_name(name, false) || labels.len() > LABELS_MAX {
            return None;
        }
        let (value, after) = quoted(after.trim_start())?;
        if labels.insert(name.to_owned(), value).is_some() {
            return None;
        }
        rest = after.trim_start();
        match rest.strip_prefix(',') {
            Some(after) => rest = after.trim_start(),
            None if rest.starts_with('}') => {}
            None => return None,
        }
    }
}

/// A value in quotes with its escapes undone, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let inside = text.strip_prefix('"')?;
    let mut value = String::new();
    let mut letters = inside.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, &inside[at + 1..])),
            '\\' => value.push(match letters.next()?.1 {
                'n' => '\n',
                escaped @ ('\\' | '"') => escaped,
                _ => return None,
            }),
            other => value.push(other),
        }
    }
    None
}

fn is_name(text: &str, colon: bool) -> bool {
    let first = text.chars().next().is_some_and(|c| !c.is_ascii_digit());
    first && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || (colon && c == ':'))
}

fn number(word: &str) -> Option<f64> {
    word.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Line {
        let mut lines = parse(text.as_bytes()).unwrap();
        assert_eq!(lines.len(), 1, "{text}");
        lines.remove(0)
    }

    #[test]
    fn labels_escapes_and_times_are_read() {
        let line = one(
            "# HELP a b\n# TYPE a counter\na{x=\"q\\\"\\\\\\n}, \", y=\"\",} 1.5e3 1700000000123\n",
        );
        assert_eq!(line.labels["x"], "q\"\\\n}, ");
        assert_eq!(line.labels["y"], "");
        assert_eq!((line.value, line.time_ms), (1_500.0, Some(1_700_000_000_123)));
        assert_eq!(one("a:b 7").labels["__name__"], "a:b");
        assert_eq!(one("a { } 7\r\n").value, 7.0);
    }

    #[test]
    fn values_may_be_no_numbers() {
        assert!(one("a NaN").value.is_nan());
        assert_eq!(one("a +Inf").value, f64::INFINITY);
        assert_eq!(one("a -Inf").value, f64::NEG_INFINITY);
    }

    #[test]
    fn open_metrics_has_seconds_and_exemplars() {
        let line = one("a_bucket{le=\"1\"} 3 1700000000.5 # {trace=\"x\"} 0.4\n# EOF\n");
        assert_eq!((line.value, line.time_ms), (3.0, Some(1_700_000_000_500)));
    }

    #[test]
    fn anything_else_is_refused_whole_with_its_line() {
        for bad in [
            "<html>",
            "a",
            "a{",
            "a{x} 1",
            "a{x=1} 1",
            "a{x=\"1} 1",
            "a{x=\"\\q\"} 1",
            "1a 1",
            "a{x=\"1\"y=\"2\"} 1",
            "a{x=\"1\",x=\"2\"} 1",
            "a 1 2 3",
            "a 1 x",
            "a one",
            "a 1 -5",
        ] {
            assert_eq!(parse(format!("ok 1\n{bad}\n").as_bytes()), Err(Error::Line(2)), "{bad}");
        }
        assert_eq!(parse(&[0xff, 0xfe]), Err(Error::Utf8));
        assert_eq!(parse("a 1\n".repeat(20_001).as_bytes()), Err(Error::Series));
        assert_eq!(parse(b""), Ok(vec![]));
    }
}
