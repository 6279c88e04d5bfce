//! Selectors and expressions in PromQL: what they cost, which variables they use, and binding those.
//!
//! A variable (`$service`) stands in the value of a label matcher and nowhere else. It is bound in the parsed syntax
//! tree, so whatever a value holds stays one literal: text is never pasted into a query.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use promql_parser::label::{MatchOp, Matcher, Matchers};
use promql_parser::parser::{self, Expr, VectorSelector};

use super::fleet::{Region, Service};
use crate::units::{RegionName, ServiceName, SlotName, Version, shown};

/// Longest text of a selector or expression, in bytes.
pub const TEXT_BYTES_MAX: usize = 4_096;
/// Most operators, brackets and words of an expression; bounds its depth as well.
pub const TOKENS_MAX: usize = 400;
/// Longest regular expression in a matcher, in characters.
pub const REGEX_CHARS_MAX: usize = 200;
/// Longest range (`[1h]`) that an expression may read.
pub const RANGE_MAX: Duration = Duration::from_secs(3_600);
/// Longest value that may be bound, in bytes.
const VALUE_BYTES_MAX: usize = 256;

/// Variables that every selector may use.
pub const VARIABLES: [&str; 4] = ["service", "region", "version", "track"];

/// Why a selector or expression cannot be used; a lower-case fragment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not PromQL.
    #[error("not PromQL: {0}")]
    Syntax(String),
    /// More text or structure than anybody needs.
    #[error("{0}")]
    TooLarge(String),
    /// A selector that would read every series of the server.
    #[error("a selector without a metric name reads every series of the server")]
    NoName,
    /// A range that reads more than an hour.
    #[error("the range {0} is longer than 1h")]
    Range(String),
    /// A regular expression that is too long.
    #[error("a regular expression of {0} characters is longer than {REGEX_CHARS_MAX}")]
    Regex(usize),
    /// A plain selector is needed, and this is an expression, or has a range, `offset` or `@`.
    #[error("expected a plain selector such as `requests_total{{service=\"$service\"}}`")]
    NotPlain,
    /// A variable without a value.
    #[error("`${0}` has no value here")]
    Unknown(String),
    /// A value that cannot be bound.
    #[error("the value of `${0}` is too long or holds control characters")]
    Value(String),
    /// The tree does not print back to itself.
    #[error("this construct cannot be bound safely")]
    Unprintable,
}

/// Binds every variable in `text` to its value and prints the expression back.
///
/// Values become label values in the syntax tree; in a regular-expression matcher they are escaped, so they match
/// themselves only. Errors for anything [`check`] refuses and for a variable that `variables` does not hold.
pub fn bind(text: &str, variables: &BTreeMap<String, String>) -> Result<String, Error> {
    let mut expression = parse(text)?;
    let mut problem = None;
    visit_selectors(&mut expression, &mut |selector| {
        for matcher in matchers_mut(&mut selector.matchers) {
            if let Err(error) = bind_matcher(matcher, variables) {
                problem.get_or_insert(error);
            }
        }
    });
    match problem {
        Some(error) => Err(error),
        None => printed(&expression),
    }
}

/// Whether `text` is PromQL within the limits: no range over an hour, no selector without a name, no huge regular
/// expression. Returns the variables it uses.
pub fn check(text: &str) -> Result<BTreeSet<String>, Error> {
    let mut expression = parse(text)?;
    let mut used = BTreeSet::new();
    visit_selectors(&mut expression, &mut |selector| {
        for matcher in matchers_mut(&mut selector.matchers) {
            used.extend(pieces(&matcher.value).filter_map(|piece| match piece {
                Piece::Variable(name) => Some(name.to_owned()),
                Piece::Text(_) => None,
            }));
        }
    });
    printed(&expression)?;
    Ok(used)
}

/// As [`check`], and `text` must be one plain instant-vector selector: what raw samples can be read for.
pub fn check_plain(text: &str) -> Result<BTreeSet<String>, Error> {
    match parse(text)? {
        Expr::VectorSelector(selector) if selector.offset.is_none() && selector.at.is_none() => {
            check(text)
        }
        _ => Err(Error::NotPlain),
    }
}

/// Name of the metric that a plain selector reads, `None` for anything else.
#[must_use]
pub fn metric_name(text: &str) -> Option<String> {
    match parse(text).ok()? {
        Expr::VectorSelector(selector) => name_of(&selector),
        _ => None,
    }
}

/// Whether two plain selectors match the same series, whatever the order of their matchers.
#[must_use]
pub fn same(left: &str, right: &str) -> bool {
    matchers_of(left).zip(matchers_of(right)).is_some_and(|(left, right)| left == right)
}

/// Whether two plain selectors of one metric differ in one matcher alone, and that one is turned round: `code=~"5.."`
/// and `code!~"5.."`. Together they then match every series that the rest of them matches.
#[must_use]
pub fn complementary(left: &str, right: &str) -> bool {
    let Some((left, right)) = matchers_of(left).zip(matchers_of(right)) else { return false };
    let only = |of: &BTreeSet<Parts>, other: &BTreeSet<Parts>| -> Vec<Parts> {
        of.difference(other).cloned().collect()
    };
    let (left, right) = (only(&left, &right), only(&right, &left));
    let ([(name, operator, value)], [(other_name, other_operator, other_value)]) =
        (&left[..], &right[..])
    else {
        return false;
    };
    let turned = match operator.as_str() {
        "=" => "!=",
        "!=" => "=",
        "=~" => "!~",
        _ => "=~",
    };
    name == other_name && value == other_value && other_operator == turned
}

/// Name, operator and value of a matcher.
type Parts = (String, String, String);

fn matchers_of(text: &str) -> Option<BTreeSet<Parts>> {
    let Expr::VectorSelector(selector) = parse(text).ok()? else { return None };
    if !selector.matchers.or_matchers.is_empty() {
        return None;
    }
    let parts =
        |matcher: &Matcher| (matcher.name.clone(), matcher.op.to_string(), matcher.value.clone());
    let name = selector.name.map(|name| ("__name__".to_owned(), "=".to_owned(), name));
    Some(selector.matchers.matchers.iter().map(parts).chain(name).collect())
}

/// Which arm a selector is bound for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Track {
    /// The version that is being replaced.
    Stable,
    /// The version that is being rolled out.
    Canary,
}

impl Track {
    /// The value of `$track`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stable => "stable",
            Self::Canary => "canary",
        }
    }
}

/// The values of all variables for one arm of a service in a region.
///
/// Later ones win: `$service $region $version $track`, the region's `labels`, the service's own `metrics` templates
/// (over `{service}` `{region}` `{slot}` `{version}` `{track}`, where `{region}` is the metrics' spelling).
#[must_use]
pub fn arm_variables(
    service_name: &ServiceName,
    service: &Service,
    region_name: &RegionName,
    region: &Region,
    slot: &SlotName,
    version: &Version,
    track: Track,
) -> BTreeMap<String, String> {
    let spelled = region.labels.get("region").map_or(region_name.as_str(), String::as_str);
    let values = [
        ("service", service_name.as_str()),
        ("region", spelled),
        ("slot", slot.as_str()),
        ("version", version.as_str()),
        ("track", track.as_str()),
    ];
    let mut variables: BTreeMap<String, String> = values
        .iter()
        .filter(|(name, _)| VARIABLES.contains(name))
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    variables.extend(region.labels.clone());
    let own =
        service.metrics.iter().map(|(name, template)| (name.clone(), fill(template, &values)));
    variables.extend(own);
    variables
}

/// Replaces `{name}` by its value in one pass, so that a value is never itself expanded. Unknown names stay as written.
#[must_use]
pub fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut filled = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(open) = rest.find('{') {
        let (before, from) = rest.split_at(open);
        filled.push_str(before);
        let known = from.find('}').and_then(|close| {
            let value = values
                .iter()
                .find(|(name, _)| *name == &from[1..close])
                .map(|(_, value)| *value)?;
            Some((value, close))
        });
        let (text, length) = known.map_or(("{", 1), |(value, close)| (value, close + 1));
        filled.push_str(text);
        rest = &from[length..];
    }
    filled + rest
}

fn parse(text: &str) -> Result<Expr, Error> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(Error::TooLarge(format!(
            "{} bytes are more than {TEXT_BYTES_MAX}",
            text.len()
        )));
    }
    if text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\t' | '\r')) {
        return Err(Error::Syntax("it holds control characters".to_owned()));
    }
    // The tree is walked by recursion, in the parser too: bound its depth before there is one.
    if tokens(text) > TOKENS_MAX {
        return Err(Error::TooLarge(format!("more than {TOKENS_MAX} operators and words")));
    }
    if let Some(chars) = longest_regex(text)
        && chars > REGEX_CHARS_MAX
    {
        return Err(Error::Regex(chars));
    }
    let mut expression = parser::parse(text).map_err(|error| Error::Syntax(shown(&error)))?;
    limit(&mut expression)?;
    Ok(expression)
}

/// Counts what could nest: every character outside strings that is neither part of a word nor space, and every word.
fn tokens(text: &str) -> usize {
    let (mut count, mut quote, mut in_word, mut escaped) = (0, None, false, false);
    for c in text.chars() {
        if let Some(open) = quote {
            if !escaped && c == open {
                quote = None;
            }
            escaped = !escaped && c == '\\' && open != '`';
            continue;
        }
        let word = c.is_alphanumeric() || matches!(c, '_' | ':' | '.');
        if (word && !in_word) || !(word || c.is_whitespace()) {
            count += 1;
        }
        in_word = word;
        if matches!(c, '"' | '\'' | '`') {
            quote = Some(c);
        }
    }
    count
}

/// Length of the longest string that follows `=~` or `!~`, before the regular expression is compiled.
fn longest_regex(text: &str) -> Option<usize> {
    let length = |after: &str| {
        let mut chars = after.trim_start().chars();
        let quote = chars.next()?;
        matches!(quote, '"' | '\'' | '`').then(|| chars.take_while(|&c| c != quote).count())
    };
    text.match_indices('~').filter_map(|(at, _)| length(&text[at + 1..])).max()
}

fn limit(expression: &mut Expr) -> Result<(), Error> {
    let mut problem = None;
    visit(expression, &mut |node| {
        let range = match node {
            Expr::Subquery(subquery) => subquery.range,
            Expr::MatrixSelector(matrix) => matrix.range,
            _ => Duration::ZERO,
        };
        if range > RANGE_MAX {
            let seconds = range.as_secs();
            problem
                .get_or_insert(Error::Range(crate::units::Millis::from_secs(seconds).to_string()));
        }
    });
    visit_selectors(expression, &mut |selector| {
        if name_of(selector).is_none() {
            problem.get_or_insert(Error::NoName);
        }
    });
    problem.map_or(Ok(()), Err)
}

fn name_of(selector: &VectorSelector) -> Option<String> {
    let named = |matcher: &Matcher| {
        let equal = matcher.name == "__name__" && matcher.op == MatchOp::Equal;
        (equal && !matcher.value.is_empty()).then(|| matcher.value.clone())
    };
    selector.name.clone().or_else(|| selector.matchers.matchers.iter().find_map(named))
}

fn visit(expression: &mut Expr, with: &mut impl FnMut(&mut Expr)) {
    with(expression);
    match expression {
        Expr::Aggregate(aggregate) => {
            visit(&mut aggregate.expr, with);
            if let Some(param) = &mut aggregate.param {
                visit(param, with);
            }
        }
        Expr::Unary(unary) => visit(&mut unary.expr, with),
        Expr::Binary(binary) => {
            visit(&mut binary.lhs, with);
            visit(&mut binary.rhs, with);
        }
        Expr::Paren(paren) => visit(&mut paren.expr, with),
        Expr::Subquery(subquery) => visit(&mut subquery.expr, with),
        Expr::Call(call) => call.args.args.iter_mut().for_each(|argument| visit(argument, with)),
        Expr::NumberLiteral(_)
        | Expr::StringLiteral(_)
        | Expr::VectorSelector(_)
        | Expr::MatrixSelector(_)
        | Expr::Extension(_) => {}
    }
}

fn visit_selectors(expression: &mut Expr, with: &mut impl FnMut(&mut VectorSelector)) {
    visit(expression, &mut |node| match node {
        Expr::VectorSelector(selector) => with(selector),
        Expr::MatrixSelector(matrix) => with(&mut matrix.vs),
        _ => {}
    });
}

fn matchers_mut(matchers: &mut Matchers) -> impl Iterator<Item = &mut Matcher> {
    matchers.matchers.iter_mut().chain(matchers.or_matchers.iter_mut().flatten())
}

fn bind_matcher(matcher: &mut Matcher, variables: &BTreeMap<String, String>) -> Result<(), Error> {
    if !pieces(&matcher.value).any(|piece| matches!(piece, Piece::Variable(_))) {
        return Ok(());
    }
    let is_regex = matches!(matcher.op, MatchOp::Re(_) | MatchOp::NotRe(_));
    let mut bound = String::new();
    for piece in pieces(&matcher.value) {
        match piece {
            Piece::Text(text) => bound.push_str(text),
            Piece::Variable(name) => {
                let value = variables.get(name).ok_or_else(|| Error::Unknown(shown(name)))?;
                if value.len() > VALUE_BYTES_MAX || value.chars().any(char::is_control) {
                    return Err(Error::Value(name.to_owned()));
                }
                if is_regex { escape_regex(value, &mut bound) } else { bound.push_str(value) }
            }
        }
    }
    matcher.value = bound;
    Ok(())
}

/// As RE2's `QuoteMeta` does: a backslash before everything that has a meaning.
fn escape_regex(value: &str, into: &mut String) {
    for c in value.chars() {
        if "\\.+*?()|[]{}^$".contains(c) {
            into.push('\\');
        }
        into.push(c);
    }
}

/// Prints the tree, and makes sure that it reads back as the same tree.
fn printed(expression: &Expr) -> Result<String, Error> {
    let text = expression.to_string();
    let again = parser::parse(&text).map_err(|_| Error::Unprintable)?;
    // Compiled regular expressions are compared by what they were compiled from, which binding does not touch.
    if again.to_string() == text && shape(&again) == shape(expression) {
        Ok(text)
    } else {
        Err(Error::Unprintable)
    }
}

/// Kind of a node and its matchers: label, operator, and whatever else a value must not change.
type Shape = (String, Vec<(String, String, String)>);

/// Everything of the tree that a bound value could change by breaking out of its quotes.
fn shape(expression: &Expr) -> Vec<Shape> {
    let mut nodes = Vec::new();
    let mut copy = expression.clone();
    visit(&mut copy, &mut |node| {
        let kind = format!("{:?}", std::mem::discriminant(node));
        let matchers = match node {
            Expr::VectorSelector(selector) => &selector.matchers,
            Expr::MatrixSelector(matrix) => &matrix.vs.matchers,
            _ => return nodes.push((kind, Vec::new())),
        };
        let all = matchers.matchers.iter().chain(matchers.or_matchers.iter().flatten());
        let of = |m: &Matcher| (m.name.clone(), m.op.to_string(), m.value.clone());
        // Printing sorts them.
        let mut matchers: Vec<_> = all.map(of).collect();
        matchers.sort();
        nodes.push((kind, matchers));
    });
    nodes
}

enum Piece<'a> {
    Text(&'a str),
    Variable(&'a str),
}

/// Splits a label value into text and `$variables` (also `${variable}`); a `$` before anything else is text.
fn pieces(value: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = value;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        if let Some((name, after)) = variable_at(rest) {
            rest = after;
            return Some(Piece::Variable(name));
        }
        let starts = rest.match_indices('$').map(|(at, _)| at);
        let end = starts.filter(|&at| at > 0).find(|&at| variable_at(&rest[at..]).is_some());
        let (text, after) = rest.split_at(end.unwrap_or(rest.len()));
        rest = after;
        Some(Piece::Text(text))
    })
}

fn variable_at(text: &str) -> Option<(&str, &str)> {
    let after = text.strip_prefix('$')?;
    let (braced, body) = after.strip_prefix('{').map_or((false, after), |body| (true, body));
    let letter = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let end = body.find(|c| !letter(c)).unwrap_or(body.len());
    let (name, rest) = body.split_at(end);
    if !name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        return None;
    }
    if braced { rest.strip_prefix('}').map(|rest| (name, rest)) } else { Some((name, rest)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(version: &str) -> BTreeMap<String, String> {
        let pairs = [
            ("service", "api"),
            ("region", "us-east-1"),
            ("version", version),
            ("track", "canary"),
        ];
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn variables_become_label_values() {
        let text =
            r#"http_requests_total{service="$service", version="v-${version}x", code=~"5.."}"#;
        assert_eq!(check(text).unwrap().into_iter().collect::<Vec<_>>(), ["service", "version"]);
        assert_eq!(
            bind(text, &variables("2")).unwrap(),
            r#"http_requests_total{code=~"5..",service="api",version="v-2x"}"#
        );
    }

    #[test]
    fn an_injection_stays_one_literal() {
        let attack = r#"x"} or vector(0) #"#;
        let bound = bind(r#"m{version="$version"}"#, &variables(attack)).unwrap();
        assert_eq!(bound, r#"m{version="x\"} or vector(0) #"}"#);
        match parser::parse(&bound).unwrap() {
            Expr::VectorSelector(selector) => {
                assert_eq!(selector.matchers.matchers[0].value, attack);
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_value_in_a_regular_expression_matches_itself_only() {
        let bound = bind(r#"m{version=~"$version|x"}"#, &variables("1.2.*|.*")).unwrap();
        assert_eq!(bound, r#"m{version=~"1\\.2\\.\\*\\|\\.\\*|x"}"#);
    }

    #[test]
    fn a_value_with_a_variable_in_it_is_not_expanded_again() {
        let bound = bind(r#"m{version="$version"}"#, &variables("$service")).unwrap();
        assert_eq!(bound, r#"m{version="$service"}"#);
    }

    #[test]
    fn expressions_are_bound_everywhere() {
        let text = r#"sum by (region) (rate(a{v="$version"}[5m] offset 1m)) / on (region) max(b{s="$service"}) > bool 0.5"#;
        let bound = bind(text, &variables("7")).unwrap();
        assert!(bound.contains(r#"v="7""#) && bound.contains(r#"s="api""#), "{bound}");
    }

    #[test]
    fn what_costs_too_much_is_refused() {
        let long = format!(r#"m{{a=~"{}"}}"#, "a|".repeat(101));
        assert_eq!(check(&long), Err(Error::Regex(202)));
        assert!(check("max_over_time(m[1h:1m])").is_ok());
        assert!(matches!(check("max_over_time(m[2h:1m])"), Err(Error::Range(_))));
        assert!(matches!(check(r#"{__name__=~".+"}[1y]"#), Err(Error::Range(_) | Error::NoName)));
        assert_eq!(check(r#"{__name__=~".+"}"#), Err(Error::NoName));
        assert!(check(r#"{__name__="m"}"#).is_ok());
        assert!(matches!(check(&"(".repeat(4_000)), Err(Error::TooLarge(_))));
        assert!(matches!(check(&"1+".repeat(3_000)), Err(Error::TooLarge(_))));
    }

    #[test]
    fn the_deepest_allowed_trees_do_not_overflow() {
        let nested = format!("{}m{}", "(".repeat(199), ")".repeat(199));
        assert!(check(&nested).is_ok());
        let chained = format!("m{}", "+m".repeat(199));
        assert!(check(&chained).is_ok());
        assert!(check(&format!("{}m", "-".repeat(300))).is_ok());
    }

    #[test]
    fn plain_selectors_have_no_range_offset_or_operator() {
        for text in ["m[5m]", "m offset 5m", "sum(m)", "m / m", "1", r#""x""#, "m @ 1"] {
            assert_eq!(check_plain(text), Err(Error::NotPlain), "{text}");
        }
        assert!(check_plain(r#"m{a="$version"}"#).is_ok());
        assert_eq!(metric_name("m{a=\"1\"}").as_deref(), Some("m"));
    }

    #[test]
    fn nonsense_is_an_error_and_never_a_panic() {
        for text in [
            "",
            "{",
            "m{",
            "m{a=}",
            "\0",
            "$service",
            "m{$a=\"x\"}",
            "m{a=~\"(\"}",
            "é",
            "`",
            "~\"",
            "m{a=\"\\",
        ] {
            assert!(check(text).is_err(), "{text:?}");
        }
        assert_eq!(
            bind(r#"m{a="$nope"}"#, &variables("1")),
            Err(Error::Unknown("nope".to_owned()))
        );
        let long = "x".repeat(300);
        assert!(matches!(bind(r#"m{a="$version"}"#, &variables(&long)), Err(Error::Value(_))));
    }

    #[test]
    fn templates_are_filled_once() {
        assert_eq!(
            fill("api-{slot}-{x}-{", &[("slot", "{version}"), ("version", "1")]),
            "api-{version}-{x}-{"
        );
    }
}
