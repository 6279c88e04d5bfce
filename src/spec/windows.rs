//! When weights may rise: windows of the week in a time zone, and freezes. They stop raises only.
//!
//! Time zones are those that were built in, so that the same plan says the same everywhere.

use std::collections::BTreeSet;

use jiff::civil::{Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, ToSpan, ZonedDateTime};
use serde::{Deserialize, Serialize};

use crate::units::{Millis, RegionName, Timestamp};

/// Days that are looked ahead for the next window.
const DAYS_AHEAD: i32 = 8;

/// A time of the week in which weights may rise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// On which days it begins, 0 is Monday.
    pub days: BTreeSet<u8>,
    /// When it begins, in minutes after midnight.
    pub from_minute: u16,
    /// When it ends; not after `from_minute`: on the next day.
    pub to_minute: u16,
    /// IANA name of the time zone.
    pub zone: String,
    /// Where; none: everywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regions: Option<BTreeSet<RegionName>>,
}

/// A time in which weights do not rise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freeze {
    /// When it begins.
    pub from: Timestamp,
    /// When it is over.
    pub to: Timestamp,
    /// Why.
    pub reason: String,
    /// Where; none: everywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regions: Option<BTreeSet<RegionName>>,
}

/// Why weights may not rise now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// What stands in the way.
    pub what: String,
    /// When that may be over, where it can be said.
    pub until: Option<Timestamp>,
}

/// Windows and freezes of a plan.
#[derive(Debug, Clone, Copy)]
pub struct Calendar<'a> {
    /// None at all: always open.
    pub windows: &'a [Window],
    /// Stronger than windows.
    pub freezes: &'a [Freeze],
}

impl Calendar<'_> {
    /// Whether weights may rise in all these regions now and for `needed` more.
    ///
    /// # Errors
    /// They may not; why, and until when.
    pub fn check<'r>(
        &self,
        regions: impl IntoIterator<Item = &'r RegionName>,
        now: Timestamp,
        needed: Millis,
    ) -> Result<(), Closed> {
        regions.into_iter().try_for_each(|region| self.check_region(region, now, needed))
    }

    fn check_region(
        &self,
        region: &RegionName,
        now: Timestamp,
        needed: Millis,
    ) -> Result<(), Closed> {
        let end = now.plus(needed);
        let concerns = |regions: &Option<BTreeSet<RegionName>>| {
            regions.as_ref().is_none_or(|regions| regions.contains(region))
        };
        let freezes = self.freezes.iter().filter(|freeze| concerns(&freeze.regions));
        for freeze in freezes {
            if now < freeze.to && end >= freeze.from {
                let begins = if now < freeze.from { " begins before it is done" } else { "" };
                let what = format!("{region}: frozen ({}){begins}", freeze.reason);
                return Err(Closed { what, until: Some(freeze.to) });
            }
        }
        let windows: Vec<_> =
            self.windows.iter().filter(|window| concerns(&window.regions)).collect();
        if windows.is_empty() {
            return Ok(());
        }
        let spans: Vec<_> = windows.iter().flat_map(|window| window.spans(now)).collect();
        let is_open = |(from, to): &&(Timestamp, Timestamp)| *from <= now && now < *to;
        if spans.iter().filter(is_open).any(|(_, to)| end <= *to) {
            return Ok(());
        }
        let next = spans.iter().map(|(from, _)| *from).filter(|from| *from > now).min();
        let what = match spans.iter().find(is_open) {
            Some((_, to)) => {
                format!(
                    "{region}: {needed} do not fit into the window, which ends at {}",
                    stamp(*to)
                )
            }
            None => format!("{region}: outside its windows"),
        };
        Err(Closed { what, until: next })
    }

    /// The longest time that weights may rise and bake in one go in a region; none: no end.
    #[must_use]
    pub fn longest(&self, region: &RegionName) -> Option<Millis> {
        let concerns = |window: &&Window| {
            window.regions.as_ref().is_none_or(|regions| regions.contains(region))
        };
        self.windows.iter().filter(concerns).map(Window::length).max()
    }
}

impl Window {
    fn length(&self) -> Millis {
        let (from, to) = (u64::from(self.from_minute), u64::from(self.to_minute));
        let minutes = if to > from { to - from } else { 24 * 60 - from + to };
        Millis::from_secs(minutes * 60)
    }

    /// Beginnings and ends around `now`: from the day before to some days ahead.
    fn spans(&self, now: Timestamp) -> Vec<(Timestamp, Timestamp)> {
        let (Some(zone), Some(now)) = (zone(&self.zone), zoned(now)) else { return Vec::new() };
        let today = now.with_time_zone(zone).date();
        let mut spans = Vec::new();
        for offset in -1..DAYS_AHEAD {
            let Ok(day) = today.checked_add(offset.days()) else { continue };
            if !self.days.contains(&number(day.weekday())) {
                continue;
            }
            let over = i32::from(self.to_minute <= self.from_minute);
            let last = day.checked_add(over.days()).unwrap_or(day);
            let at = |day: jiff::civil::Date, minute: u16| {
                let time = clock(minute)?;
                let zone = TimeZone::get(&self.zone).ok()?;
                // An hour that the clock leaves out begins when it goes on.
                instant(&day.to_datetime(time).to_zoned_datetime(zone).ok()?)
            };
            spans.extend(at(day, self.from_minute).zip(at(last, self.to_minute)));
        }
        spans
    }
}

fn number(day: Weekday) -> u8 {
    u8::try_from(day.to_monday_zero_offset()).unwrap_or(0)
}

fn clock(minute: u16) -> Option<Time> {
    let (hour, minute) = (minute / 60 % 24, minute % 60);
    Time::new(i8::try_from(hour).ok()?, i8::try_from(minute).ok()?, 0, 0).ok()
}

fn zoned(at: Timestamp) -> Option<ZonedDateTime> {
    let at = jiff::Timestamp::from_millisecond(i64::try_from(at.0).ok()?).ok()?;
    Some(at.to_zoned_datetime(TimeZone::UTC))
}

fn instant(at: &ZonedDateTime) -> Option<Timestamp> {
    u64::try_from(at.timestamp().as_millisecond()).ok().map(Timestamp)
}

/// A time zone by its name.
#[must_use]
pub fn zone(name: &str) -> Option<TimeZone> {
    // `local` and offsets are other things on other machines, or in other months.
    name.contains('/')
        .then(|| TimeZone::get(name).ok())
        .flatten()
        .or_else(|| (name == "UTC").then_some(TimeZone::UTC))
}

/// A day, or a day with a time, in a zone: the instant. A day as an end is its first instant.
#[must_use]
pub fn civil(text: &str, zone: &TimeZone) -> Option<Timestamp> {
    let at = text.parse::<jiff::civil::DateTime>().or_else(|_| {
        text.parse::<jiff::civil::Date>().map(|day| day.to_datetime(Time::midnight()))
    });
    instant(&at.ok()?.to_zoned_datetime(zone.clone()).ok()?)
}

/// A time as people read it everywhere: UTC, to the minute.
#[must_use]
pub fn stamp(at: Timestamp) -> String {
    let rounded = zoned(at).and_then(|at| {
        let seconds = SignedDuration::from_secs(i64::from(at.second()));
        at.checked_sub(seconds).ok()
    });
    rounded.map_or_else(|| at.0.to_string(), |at| at.strftime("%Y-%m-%d %H:%M UTC").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        let at: jiff::Timestamp = text.parse().unwrap();
        Timestamp(u64::try_from(at.as_millisecond()).unwrap())
    }

    fn region(name: &str) -> RegionName {
        name.parse().unwrap()
    }

    fn window(days: &[u8], from: u16, to: u16, zone: &str) -> Window {
        let days = days.iter().copied().collect();
        let zone = zone.to_owned();
        Window { days, from_minute: from * 60, to_minute: to * 60, zone, regions: None }
    }

    const HOUR: Millis = Millis::from_secs(3_600);

    #[test]
    fn a_window_is_open_in_its_own_zone_and_only_if_the_bake_fits_in() {
        let windows = [window(&[0, 1, 2, 3], 9, 16, "Europe/Berlin")];
        let calendar = Calendar { windows: &windows, freezes: &[] };
        let check = |now: &str, needed| calendar.check([&region("a")], at(now), needed);
        // Monday, winter: 09:00 is 08:00 UTC; summer: 07:00 UTC.
        assert!(check("2026-11-23T07:59:59Z", HOUR).is_err());
        assert_eq!(check("2026-11-23T08:00:00Z", HOUR), Ok(()));
        assert_eq!(check("2026-07-06T07:00:00Z", HOUR), Ok(()));
        assert_eq!(check("2026-11-23T14:00:00Z", HOUR), Ok(()));
        let late = check("2026-11-23T14:00:01Z", HOUR).unwrap_err();
        assert!(late.what.contains("do not fit") && late.what.contains("15:00 UTC"), "{late:?}");
        assert_eq!(late.until, Some(at("2026-11-24T08:00:00Z")));
        // Thursday evening: the next one begins on Monday.
        let weekend = check("2026-11-26T16:00:00Z", Millis::ZERO).unwrap_err();
        assert_eq!(weekend.until, Some(at("2026-11-30T08:00:00Z")));
    }

    #[test]
    fn a_window_may_reach_over_midnight_and_over_a_change_of_the_clock() {
        let windows = [window(&[5], 22, 6, "Europe/Berlin")];
        let calendar = Calendar { windows: &windows, freezes: &[] };
        let check = |now: &str| calendar.check([&region("a")], at(now), Millis::ZERO);
        // The night to Sunday, 25 October 2026, has an hour more.
        assert_eq!(check("2026-10-24T20:00:00Z"), Ok(()));
        assert_eq!(check("2026-10-25T04:59:59Z"), Ok(()));
        assert!(check("2026-10-25T05:00:00Z").is_err());
        assert!(check("2026-10-25T20:30:00Z").is_err());
    }

    #[test]
    fn a_freeze_is_stronger_than_a_window_and_counts_where_it_is_meant() {
        let zone = zone("America/New_York").unwrap();
        let freeze = Freeze {
            from: civil("2026-12-20", &zone).unwrap(),
            to: civil("2027-01-04T08:00", &zone).unwrap(),
            reason: "holidays".to_owned(),
            regions: Some([region("us")].into()),
        };
        let calendar = Calendar { windows: &[], freezes: std::slice::from_ref(&freeze) };
        let check =
            |name: &str, now: &str, needed| calendar.check([&region(name)], at(now), needed);
        assert_eq!(check("us", "2026-12-20T03:59:59Z", Millis::ZERO), Ok(()));
        let early = check("us", "2026-12-20T04:00:00Z", HOUR).unwrap_err();
        assert!(early.what.contains("begins before it is done"), "{early:?}");
        assert!(check("us", "2026-12-25T00:00:00Z", Millis::ZERO).is_err());
        assert_eq!(check("eu", "2026-12-25T00:00:00Z", HOUR), Ok(()));
        assert_eq!(check("us", "2027-01-04T13:00:00Z", HOUR), Ok(()));
    }

    #[test]
    fn zones_have_names_and_nothing_else_is_one() {
        assert!(zone("Europe/Berlin").is_some() && zone("UTC").is_some());
        for wrong in ["local", "+01:00", "CET", "Europe/Atlantis", "", "EST5EDT"] {
            assert!(zone(wrong).is_none(), "{wrong}");
        }
        assert_eq!(stamp(at("2026-11-23T08:00:42.5Z")), "2026-11-23 08:00 UTC");
    }
}
