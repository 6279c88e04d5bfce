//! Windows and freezes of a pipeline, as written.

use std::collections::BTreeSet;

use super::codes;
use super::decode::{Decoder, Fields};
use super::file::Node;
use super::windows::{Freeze, Window, civil, zone};
use crate::units::RegionName;

/// Most windows, and most freezes.
const ENTRIES_MAX: usize = 100;
const DAYS: [(&str, u8); 7] =
    [("mon", 0), ("tue", 1), ("wed", 2), ("thu", 3), ("fri", 4), ("sat", 5), ("sun", 6)];
const ZONE_HELP: &str = "write an IANA name such as Europe/Berlin, or UTC";

/// `{days: [mon], from: "09:00", to: "16:00", zone: Europe/Berlin, regions: [eu_west_1]}`.
pub(super) fn windows(decoder: &mut Decoder, node: &Node) -> Option<Vec<Window>> {
    let windows = decoder.each(node, |decoder, node| {
        let mut fields = decoder.fields(node)?;
        let days = fields.get(decoder, "days", |decoder, node| {
            let days = decoder.each(node, |decoder, node| decoder.choice(node, &DAYS))?;
            Some(days.into_iter().collect::<BTreeSet<u8>>())
        });
        let from = fields.require(decoder, "from", time);
        let to = fields.require(decoder, "to", time);
        let zone = zone_name(decoder, &mut fields);
        let regions = regions(decoder, &mut fields);
        fields.finish(decoder);
        let days = days.unwrap_or_else(|| DAYS.iter().map(|(_, day)| *day).collect());
        if days.is_empty() {
            decoder.error(codes::INVALID_VALUE, node.span, "a window on no day", "name some days");
        }
        Some(Window { days, from_minute: from?, to_minute: to?, zone: zone?, regions })
    })?;
    not_too_many(decoder, node, windows.len());
    Some(windows)
}

/// `{from: 2026-12-20, to: 2027-01-04T08:00, zone: Europe/Berlin, reason: holidays, regions: [eu_west_1]}`.
pub(super) fn freezes(decoder: &mut Decoder, node: &Node) -> Option<Vec<Freeze>> {
    let freezes = decoder.each(node, |decoder, node| {
        let mut fields = decoder.fields(node)?;
        let from = fields.require(decoder, "from", Decoder::spanned_text);
        let to = fields.require(decoder, "to", Decoder::spanned_text);
        let name = zone_name(decoder, &mut fields);
        let reason = fields.require(decoder, "reason", Decoder::text);
        let regions = regions(decoder, &mut fields);
        fields.finish(decoder);
        let (from, to, zone) = (from?, to?, zone(&name?)?);
        let mut instant = |text: &super::decode::Spanned<String>| {
            let at = civil(&text.value, &zone);
            if at.is_none() {
                let help = "write a day or a time such as 2026-12-20 or 2026-12-20T18:00";
                decoder.error(codes::INVALID_VALUE, text.span, "this is no day and no time", help);
            }
            at
        };
        let (begin, end) = (instant(&from), instant(&to));
        let (begin, end) = (begin?, end?);
        if begin >= end {
            let message = "a freeze ends after it begins";
            decoder.error(codes::INVALID_VALUE, to.span, message, "");
            return None;
        }
        Some(Freeze { from: begin, to: end, reason: reason?, regions })
    })?;
    not_too_many(decoder, node, freezes.len());
    Some(freezes)
}

fn not_too_many(decoder: &mut Decoder, node: &Node, count: usize) {
    if count > ENTRIES_MAX {
        decoder.error(codes::TOO_MANY, node.span, format!("more than {ENTRIES_MAX} of them"), "");
    }
}

fn zone_name(decoder: &mut Decoder, fields: &mut Fields<'_>) -> Option<String> {
    fields.require(decoder, "zone", |decoder, node| {
        let name = decoder.text(node)?;
        if zone(&name).is_none() {
            let message = format!("there is no time zone `{}`", crate::units::shown(&name));
            decoder.error(codes::INVALID_VALUE, node.span, message, ZONE_HELP);
            return None;
        }
        Some(name)
    })
}

fn regions(decoder: &mut Decoder, fields: &mut Fields<'_>) -> Option<BTreeSet<RegionName>> {
    fields.get(decoder, "regions", |decoder, node| {
        Some(decoder.each(node, Decoder::name::<RegionName>)?.into_iter().collect())
    })
}

/// `09:30` in minutes after midnight; `24:00` is the end of the day.
fn time(decoder: &mut Decoder, node: &Node) -> Option<u16> {
    let text = decoder.text(node)?;
    let parts = text.split_once(':').filter(|(_, minute)| minute.len() == 2);
    let minutes = parts.and_then(|(hour, minute)| {
        let (hour, minute) = (hour.parse::<u16>().ok()?, minute.parse::<u16>().ok()?);
        let whole = (hour < 24 && minute < 60) || (hour == 24 && minute == 0);
        whole.then_some((hour * 60 + minute) % (24 * 60))
    });
    if minutes.is_none() {
        let help = "write hours and minutes in quotes, such as \"09:30\"";
        decoder.error(codes::INVALID_VALUE, node.span, "this is no time of the day", help);
    }
    minutes
}
