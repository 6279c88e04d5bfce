//! Durations, percentages, weights and limits as people write them.

use crate::units::{Millis, Weight, shown};

/// How a duration is written.
pub const DURATION_HELP: &str = "write a duration such as 30_minutes, 2_hours, 90s, 1h30m or 500ms";
/// How a weight is written.
pub const WEIGHT_HELP: &str = "write a share from 0 to 100 without a space, such as 5 or 5%";
/// Longest duration.
const DURATION_MAX: Millis = Millis::from_secs(365 * 86_400);

/// Why a text is no quantity; a lower-case fragment that names the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not a duration.
    #[error("`{0}` is not a duration")]
    Duration(String),
    /// Longer than a year.
    #[error("`{0}` is longer than 365 days")]
    TooLong(String),
    /// Not a weight.
    #[error("`{0}` is not a weight")]
    Weight(String),
    /// Not a finite number.
    #[error("`{0}` is not a number")]
    Number(String),
    /// Not a limit.
    #[error("`{0}` is not a percentage, time or number")]
    Limit(String),
}

/// Milliseconds of one unit in all its spellings, largest first.
const UNITS: [(&[&str], u64); 5] = [
    (&["d", "day", "days"], 86_400_000),
    (&["h", "hour", "hours"], 3_600_000),
    (&["m", "min", "minute", "minutes"], 60_000),
    (&["s", "sec", "second", "seconds"], 1_000),
    (&["ms", "millisecond", "milliseconds"], 1),
];

/// A duration: whole numbers with units in falling order (`1h30m`, `30_minutes`), at most 365 days.
pub fn duration(text: &str) -> Result<Millis, Error> {
    let wrong = || Error::Duration(shown(text));
    let too_long = || Error::TooLong(shown(text));
    let (mut rest, mut sum, mut unit_before) = (text, 0_u64, u64::MAX);
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, after) = rest.split_at(digits);
        let after = after.strip_prefix(['_', ' ']).unwrap_or(after);
        let end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let (_, factor) =
            UNITS.iter().find(|(names, _)| names.contains(&unit)).ok_or_else(wrong)?;
        if number.is_empty() || *factor >= unit_before {
            return Err(wrong());
        }
        let number: u64 = number.parse().map_err(|_| too_long())?;
        sum = number
            .checked_mul(*factor)
            .and_then(|part| sum.checked_add(part))
            .ok_or_else(too_long)?;
        unit_before = *factor;
        let next = after.strip_prefix('_').unwrap_or(after);
        if next.is_empty() && !after.is_empty() {
            return Err(wrong());
        }
        rest = next;
    }
    if Millis(sum) > DURATION_MAX { Err(too_long()) } else { Ok(Millis(sum)) }
}

/// A share of traffic: `5`, `5%`, `0.5%`; not `5 %`, because a space splits it in other places where weights are written.
pub fn weight(text: &str) -> Result<Weight, Error> {
    let wrong = || Error::Weight(shown(text));
    let percent = number(text.strip_suffix('%').unwrap_or(text)).map_err(|_| wrong())?;
    Weight::from_percent(percent).map_err(|_| wrong())
}

/// A finite number in plain digits (no exponent, no `inf`).
pub fn number(text: &str) -> Result<f64, Error> {
    let wrong = || Error::Number(shown(text));
    let digits = text.strip_prefix('-').unwrap_or(text);
    let plain = digits.chars().all(|c| c.is_ascii_digit() || c == '.');
    if !plain || !digits.starts_with(|c: char| c.is_ascii_digit()) || text.len() > 40 {
        return Err(wrong());
    }
    text.parse().ok().filter(|number: &f64| number.is_finite()).ok_or_else(wrong)
}

/// The right side of a criterion.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Limit {
    /// `0.1%`: of what, the analysis says.
    Percent(f64),
    /// `0.1pp`: percentage points.
    Points(f64),
    /// `10% relative`: of stable's value.
    Relative(f64),
    /// `500ms`.
    Time(Millis),
    /// `4.5`.
    Number(f64),
}

/// A limit as a criterion writes it.
pub fn limit(text: &str) -> Result<Limit, Error> {
    let text = text.trim();
    let wrong = || Error::Limit(shown(text));
    let relative =
        text.strip_suffix("relative").map(str::trim_end).filter(|rest| rest.ends_with('%'));
    let (body, is_relative) = relative.map_or((text, false), |rest| (rest, true));
    if let Some(percent) = body.strip_suffix('%') {
        let percent = number(percent).map_err(|_| wrong())?;
        return Ok(if is_relative { Limit::Relative(percent) } else { Limit::Percent(percent) });
    }
    if let Some(points) = body.strip_suffix("pp") {
        return number(points).map(Limit::Points).map_err(|_| wrong());
    }
    number(body)
        .map(Limit::Number)
        .or_else(|_| duration(body).map(Limit::Time))
        .map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_write_them() {
        let cases = [
            ("30_minutes", 1_800_000),
            ("2_hours", 7_200_000),
            ("90s", 90_000),
            ("1h30m", 5_400_000),
            ("500ms", 500),
            ("1_day", 86_400_000),
            ("1_hour_30_minutes", 5_400_000),
            ("1 minute", 60_000),
            ("0s", 0),
        ];
        for (text, ms) in cases {
            assert_eq!(duration(text), Ok(Millis(ms)), "{text}");
        }
        for text in [
            "", "5", "s", "5x", "-5s", "5.5s", "30m1h", "1h1h", "5s_", "_5s", "5__s", "∞", "5 5",
            "1e9s",
        ] {
            assert!(matches!(duration(text), Err(Error::Duration(_))), "{text:?}");
        }
        for text in ["999999999d", "99999999999999999999999s", "366d", "18446744073709551615ms"] {
            assert!(matches!(duration(text), Err(Error::TooLong(_))), "{text}");
        }
    }

    #[test]
    fn weights_are_percent_without_a_space() {
        assert_eq!(weight("5"), Weight::from_percent(5.0).map_err(|_| unreachable!()));
        assert_eq!(weight("5%").map(Weight::hundredths), Ok(500));
        assert_eq!(weight("33.33%").map(Weight::hundredths), Ok(3_333));
        for text in ["-1", "101", "33.333", "NaN", "5 %", "inf", "", "%", "1e1", "5%%"] {
            assert!(weight(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn limits_say_what_they_are() {
        assert_eq!(limit("0.1%"), Ok(Limit::Percent(0.1)));
        assert_eq!(limit("0.1pp"), Ok(Limit::Points(0.1)));
        assert_eq!(limit("10% relative"), Ok(Limit::Relative(10.0)));
        assert_eq!(limit("500ms"), Ok(Limit::Time(Millis(500))));
        assert_eq!(limit("4.5"), Ok(Limit::Number(4.5)));
        for text in ["", "5 %", "10 relative", "x", "1e3%", "NaN"] {
            assert!(limit(text).is_err(), "{text:?}");
        }
    }
}
