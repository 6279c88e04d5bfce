//! Units: no bare number and no bare name crosses a module border.

mod reach;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use reach::Reach;

/// Why a text or number is not the unit it should be; a lower-case fragment that names the value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not a name that may stand in files, labels and paths.
    #[error(
        "`{0}` is not a name: expected 1 to 63 of a-z, 0-9, `_`, `-`, starting with a letter or digit"
    )]
    Name(String),
    /// Not a version: empty, longer than 128 bytes, or with control characters.
    #[error("`{0}` is not a version: expected 1 to 128 printable characters without spaces")]
    Version(String),
    /// Not a weight.
    #[error("{0} is not a weight: expected 0 to 100 percent in steps of 0.01")]
    Weight(String),
    /// Not the id of a rollout.
    #[error("`{0}` is not a rollout: expected <service>-<number>")]
    Rollout(String),
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks the name: `^[a-z0-9][a-z0-9_-]{0,62}$`.
            pub fn new(text: impl Into<String>) -> Result<Self, Error> {
                let text = text.into();
                if is_name(&text) { Ok(Self(text)) } else { Err(Error::Name(shown(&text))) }
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.pad(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = Error;
            fn try_from(text: String) -> Result<Self, Error> {
                Self::new(text)
            }
        }

        impl std::str::FromStr for $name {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self, Error> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }
    )+};
}

names! {
    /// A region of the fleet, such as `us_east_1`.
    RegionName,
    /// A service, such as `api-gateway`.
    ServiceName,
    /// A stage of a pipeline.
    StageName,
    /// An analysis: one metric or check.
    AnalysisName,
    /// A pipeline.
    PipelineName,
    /// One of the two pools that a service has in a region, under the operator's own name.
    SlotName,
    /// One load balancer of a service in a region.
    TargetName,
}

fn is_name(text: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    (1..=63).contains(&bytes.len())
        && letter(bytes[0])
        && bytes.iter().all(|&byte| letter(byte) || byte == b'_' || byte == b'-')
}

/// Text from outside made safe to show: control and bidirectional characters escaped, at most 80 characters.
#[must_use]
pub fn shown(text: &str) -> String {
    let mut safe = String::new();
    for c in text.chars().take(80) {
        if is_hidden(c) { safe.extend(c.escape_unicode()) } else { safe.push(c) }
    }
    if text.chars().nth(80).is_some() {
        safe.push('…');
    }
    safe
}

/// The same for longer text that may have several lines.
#[must_use]
pub fn shown_lines(text: &str) -> String {
    let mut safe = String::new();
    for c in text.chars().take(100_000) {
        if is_hidden(c) && c != '\n' { safe.extend(c.escape_unicode()) } else { safe.push(c) }
    }
    safe
}

/// What a terminal would act on instead of showing it.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A version of a service: an opaque string of 1 to 128 printable characters without spaces.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version(String);

impl Version {
    /// Checks length and characters.
    pub fn new(text: impl Into<String>) -> Result<Self, Error> {
        let text = text.into();
        let printable = text.chars().all(|c| !c.is_control() && !c.is_whitespace());
        if (1..=128).contains(&text.len()) && printable && shown(&text).len() >= text.len().min(80)
        {
            Ok(Self(text))
        } else {
            Err(Error::Version(shown(&text)))
        }
    }

    /// The version as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.0)
    }
}

impl TryFrom<String> for Version {
    type Error = Error;
    fn try_from(text: String) -> Result<Self, Error> {
        Self::new(text)
    }
}

impl std::str::FromStr for Version {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        Self::new(text)
    }
}

impl From<Version> for String {
    fn from(version: Version) -> Self {
        version.0
    }
}

/// Which rollout: the service and its running number, written `api-gateway-3`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RolloutId {
    /// The service.
    pub service: ServiceName,
    /// 1 for the first rollout of the service.
    pub number: u64,
}

impl fmt::Display for RolloutId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&format!("{}-{}", self.service, self.number))
    }
}

impl std::str::FromStr for RolloutId {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || Error::Rollout(shown(text));
        let (service, number) = text.rsplit_once('-').ok_or_else(wrong)?;
        Ok(Self {
            service: ServiceName::new(service).map_err(|_| wrong())?,
            number: number.parse().map_err(|_| wrong())?,
        })
    }
}

impl TryFrom<String> for RolloutId {
    type Error = Error;
    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<RolloutId> for String {
    fn from(id: RolloutId) -> Self {
        id.to_string()
    }
}

/// A share of traffic, 0 to 100 %, in hundredths of a percent.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(try_from = "u16", into = "u16")]
pub struct Weight(u16);

impl Weight {
    /// No traffic.
    pub const ZERO: Self = Self(0);
    /// All traffic.
    pub const FULL: Self = Self(10_000);

    /// From percent; an error for NaN, anything outside 0 to 100, or finer than 0.01.
    pub fn from_percent(percent: f64) -> Result<Self, Error> {
        let wrong = || Error::Weight(percent.to_string());
        if !(0.0..=100.0).contains(&percent) {
            return Err(wrong());
        }
        let hundredths = (percent * 100.0).round();
        if (percent * 100.0 - hundredths).abs() > 1e-6 {
            return Err(wrong());
        }
        // In 0..=10000 by the check above.
        Ok(Self(hundredths as u16))
    }

    /// The nearest weight to `part` of `whole`; `None` when `whole` is 0 or `part` exceeds it.
    #[must_use]
    pub fn from_ratio(part: u64, whole: u64) -> Option<Self> {
        if whole == 0 || part > whole {
            return None;
        }
        let scaled = (u128::from(part) * 20_000 + u128::from(whole)) / (2 * u128::from(whole));
        let mut hundredths = u16::try_from(scaled).ok()?;
        // Only nothing is 0 and only everything is full, whatever the balancer's own steps.
        if part > 0 && hundredths == 0 {
            hundredths = 1;
        }
        if part < whole && hundredths == 10_000 {
            hundredths = 9_999;
        }
        Some(Self(hundredths))
    }

    /// 0 to 100.
    #[must_use]
    pub fn percent(self) -> f64 {
        f64::from(self.0) / 100.0
    }

    /// 0 to 1.
    #[must_use]
    pub fn fraction(self) -> f64 {
        f64::from(self.0) / 10_000.0
    }

    /// 0 to 10,000.
    #[must_use]
    pub fn hundredths(self) -> u16 {
        self.0
    }

    /// What the other arm gets.
    #[must_use]
    pub fn complement(self) -> Self {
        Self(10_000 - self.0)
    }

    /// Nothing at all.
    #[must_use]
    pub fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// For serde: the same, by reference.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
    pub(crate) fn is_unset(&self) -> bool {
        self.is_zero()
    }

    /// Scales onto `0..=max`. A non-zero weight never becomes 0, and only FULL becomes `max` (for `max` ≥ 2).
    #[must_use]
    pub fn scaled_to(self, max: u32) -> u32 {
        if self == Self::ZERO || self == Self::FULL {
            return if self == Self::FULL { max } else { 0 };
        }
        let scaled = (u64::from(self.0) * u64::from(max) + 5_000) / 10_000;
        // At most `max`, which is a u32.
        (scaled as u32).clamp(1.min(max), max.saturating_sub(1).max(1))
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&format!("{} %", self.percent()))
    }
}

impl TryFrom<u16> for Weight {
    type Error = Error;
    fn try_from(hundredths: u16) -> Result<Self, Error> {
        if hundredths <= 10_000 {
            Ok(Self(hundredths))
        } else {
            Err(Error::Weight(format!("{}", f64::from(hundredths) / 100.0)))
        }
    }
}

impl From<Weight> for u16 {
    fn from(weight: Weight) -> Self {
        weight.0
    }
}

/// A length of time in milliseconds.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Millis(pub u64);

impl Millis {
    /// No time.
    pub const ZERO: Self = Self(0);

    /// From whole seconds.
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds * 1_000)
    }

    /// As seconds.
    #[must_use]
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1_000.0
    }

    /// As the standard library's duration.
    #[must_use]
    pub const fn duration(self) -> std::time::Duration {
        std::time::Duration::from_millis(self.0)
    }

    /// The sum, at most the largest representable time.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// What is left after `other`, at least zero.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

/// As people write it: `250ms`, `90s`, `1h30m`, `30m`.
impl fmt::Display for Millis {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0;
        let text = if ms < 1_000 {
            format!("{ms}ms")
        } else if ms < 60_000 {
            format!("{}s", (ms as f64 / 100.0).round() / 10.0)
        } else {
            let (hours, minutes, seconds) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60);
            let part = |count: u64, unit: &str| {
                if count > 0 { format!("{count}{unit}") } else { String::new() }
            };
            part(hours, "h") + &part(minutes, "m") + &part(seconds, "s")
        };
        formatter.pad(&text)
    }
}

/// Milliseconds since 1970, from a clock that never steps back within one process.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// How long after `earlier`; zero if it is not after it.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Millis {
        Millis(self.0.saturating_sub(earlier.0))
    }

    /// Later by `time`.
    #[must_use]
    pub const fn plus(self, time: Millis) -> Self {
        Self(self.0.saturating_add(time.0))
    }

    /// Earlier by `time`.
    #[must_use]
    pub const fn minus(self, time: Millis) -> Self {
        Self(self.0.saturating_sub(time.0))
    }
}

/// Counter of desired-weight changes of a rollout; every effect and every observation carries one.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Generation(pub u64);

impl Generation {
    /// The next one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "g{}", self.0)
    }
}

/// Position of a record in the journal; 0 before the first.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Seq(pub u64);

impl Seq {
    /// The next one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_non_zero_weight_never_becomes_zero_and_only_full_becomes_full() {
        for max in [100, 255, 256, 999, 10_000] {
            for hundredths in 0..=10_000 {
                let weight = Weight::try_from(hundredths).unwrap();
                let scaled = weight.scaled_to(max);
                assert_eq!(scaled == 0, weight == Weight::ZERO, "{weight} of {max}");
                assert_eq!(scaled == max, weight == Weight::FULL, "{weight} of {max}");
            }
        }
    }

    #[test]
    fn weights_from_a_balancers_own_steps_keep_their_ends() {
        assert_eq!(Weight::from_ratio(0, 256), Some(Weight::ZERO));
        assert_eq!(Weight::from_ratio(256, 256), Some(Weight::FULL));
        assert_eq!(Weight::from_ratio(1, 1_000_000), Weight::from_percent(0.01).ok());
        assert_eq!(Weight::from_ratio(999_999, 1_000_000), Weight::from_percent(99.99).ok());
        assert_eq!(Weight::from_ratio(5, 100), Weight::from_percent(5.0).ok());
        assert_eq!(Weight::from_ratio(1, 0), None);
        assert_eq!(Weight::from_ratio(2, 1), None);
    }

    #[test]
    fn weights_that_are_none_are_refused() {
        for percent in [-1.0, 100.01, 33.333, f64::NAN, f64::INFINITY] {
            assert!(Weight::from_percent(percent).is_err(), "{percent}");
        }
        assert_eq!(Weight::from_percent(33.33).map(Weight::hundredths), Ok(3333));
    }

    #[test]
    fn names_refuse_what_could_leave_a_label_or_a_path() {
        for bad in ["", "A", "-a", "a/b", "a b", "a\n", "../a", "ä", &"a".repeat(64)] {
            assert!(ServiceName::new(bad).is_err(), "{bad:?}");
        }
        for good in ["a", "api-gateway", "us_east_1", &"a".repeat(63)] {
            assert!(ServiceName::new(good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn a_rollout_id_reads_back_as_written() {
        let id: RolloutId = "api-gateway-12".parse().unwrap();
        assert_eq!((id.service.as_str(), id.number), ("api-gateway", 12));
        assert_eq!(id.to_string(), "api-gateway-12");
        assert!("api".parse::<RolloutId>().is_err());
    }

    #[test]
    fn times_are_shown_as_people_write_them() {
        let shown: Vec<_> =
            [250, 1_500, 90_000, 5_400_000].iter().map(|&ms| Millis(ms).to_string()).collect();
        assert_eq!(shown, ["250ms", "1.5s", "1m30s", "1h30m"]);
    }

    #[test]
    fn text_from_outside_is_shown_without_its_tricks() {
        assert_eq!(shown("a\u{1b}[31mb\u{202e}"), "a\\u{1b}[31mb\\u{202e}");
        assert_eq!(shown(&"x".repeat(90)).chars().count(), 81);
    }
}
