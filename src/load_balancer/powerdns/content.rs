//! What a weighted record says: `A "pickwrandom({{9500,'192.0.2.1'},{500,'192.0.2.2'}})"`, written and read.
//!
//! Addresses stand in single quotes: over double ones the API says yes, and the name server answers SERVFAIL.

use std::net::IpAddr;

use crate::spec::fleet::Family;
use crate::units::Weight;

/// A record that picks one address; those of a slot share its weight evenly, and a slot without weight does not appear.
///
/// The whole is at most 10,000 times the least common multiple of two counts up to 16, which is 2.4 million.
pub fn write(family: Family, weights: [Weight; 2], addresses: [&[IpAddr]; 2]) -> String {
    let counts = addresses.map(|slot| slot.len() as u64);
    let common = counts[0] * counts[1] / greatest_divisor(counts[0], counts[1]).max(1);
    let mut picks = Vec::new();
    for (weight, (slot, count)) in weights.into_iter().zip(addresses.into_iter().zip(counts)) {
        let each = u64::from(weight.hundredths()) * common / count.max(1);
        let shown = slot.iter().filter(|_| each > 0);
        picks.extend(shown.map(|address| format!("{{{each},'{address}'}}")));
    }
    format!("{} \"pickwrandom({{{}}})\"", family.says(), picks.join(","))
}

/// The weights of both slots, in a record as [`write`] makes it or as a person who follows it does.
///
/// Spaces are free, and `;return` may stand before. Everything else, and every address of nobody, is an error for people.
pub fn read(content: &str, family: Family, addresses: [&[IpAddr]; 2]) -> Result<[u64; 2], String> {
    let strange = || "its content is not one `pickwrandom` of weights and addresses".to_owned();
    let picks = inside(content, family).ok_or_else(strange)?;
    let mut sums = [0_u64; 2];
    for pick in picks.split('}').map(|pick| pick.trim_start_matches(',')) {
        if pick.is_empty() {
            continue;
        }
        let (weight, address) = entry(pick).ok_or_else(strange)?;
        let slot = addresses.iter().position(|slot| slot.contains(&address));
        let slot = slot.ok_or_else(|| format!("it picks {address}, which is of neither slot"))?;
        sums[slot] += u64::from(weight);
    }
    Ok(sums)
}

/// What stands in the outer braces, without spaces.
fn inside(content: &str, family: Family) -> Option<String> {
    let text = content.trim().strip_prefix(family.says())?.trim();
    let text = text.strip_prefix('"')?.strip_suffix('"')?.trim();
    let text = text.strip_prefix(";return ").or(text.strip_prefix("; return ")).unwrap_or(text);
    let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    let picks = text.strip_prefix("pickwrandom({")?.strip_suffix("})")?;
    Some(picks.to_owned())
}

/// `{9500,'192.0.2.1'` without its closing brace.
fn entry(pick: &str) -> Option<(u32, IpAddr)> {
    let (weight, address) = pick.strip_prefix('{')?.split_once(',')?;
    let address = address.strip_prefix('\'')?.strip_suffix('\'')?;
    Some((weight.parse().ok()?, address.parse().ok()?))
}

fn greatest_divisor(one: u64, other: u64) -> u64 {
    if other == 0 { one } else { greatest_divisor(other, one % other) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLUE: &[&str] = &["192.0.2.1", "192.0.2.3", "192.0.2.4"];
    const GREEN: &[&str] = &["192.0.2.2", "192.0.2.5"];

    fn addresses(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn percent(percent: f64) -> [Weight; 2] {
        let green = Weight::from_percent(percent).unwrap();
        [green.complement(), green]
    }

    #[test]
    fn a_slots_weight_is_shared_evenly_and_read_again_exactly() {
        let (blue, green) = (addresses(BLUE), addresses(GREEN));
        let slots = [blue.as_slice(), green.as_slice()];
        for hundredths in 0..=10_000_u16 {
            let weights = percent(f64::from(hundredths) / 100.0);
            let content = write(Family::A, weights, slots);
            let [one, other] = read(&content, Family::A, slots).unwrap();
            assert_eq!(Weight::from_ratio(other, one + other), Some(weights[1]), "{content}");
        }
        assert_eq!(
            write(Family::A, percent(5.0), [&blue[..1], &green[..1]]),
            "A \"pickwrandom({{9500,'192.0.2.1'},{500,'192.0.2.2'}})\""
        );
        // Nobody asks those who have nothing.
        assert!(!write(Family::A, percent(0.0), slots).contains("192.0.2.2"));
    }

    #[test]
    fn what_a_person_writes_is_read_where_it_is_clear() {
        let (blue, green) = (addresses(&BLUE[..1]), addresses(&GREEN[..1]));
        let slots = [blue.as_slice(), green.as_slice()];
        let read = |content: &str| read(content, Family::A, slots);
        for good in [
            "A \"pickwrandom({{3,'192.0.2.1'},{1,'192.0.2.2'}})\"",
            "A   \"; return pickwrandom({ {3, '192.0.2.1'}, {1, '192.0.2.2'}, })\"",
            "A \";return pickwrandom({{1,'192.0.2.2'},{3,'192.0.2.1'}})\"",
        ] {
            assert_eq!(read(good), Ok([3, 1]), "{good}");
        }
        assert_eq!(read("A \"pickwrandom({})\""), Ok([0, 0]));
        for (bad, word) in [
            ("A \"pickwrandom({{3,\\\"192.0.2.1\\\"}})\"", "not one `pickwrandom`"),
            ("A \"ifportup(443, {'192.0.2.1'})\"", "not one `pickwrandom`"),
            ("A \"pickwrandom({{-3,'192.0.2.1'}})\"", "not one `pickwrandom`"),
            ("AAAA \"pickwrandom({{3,'192.0.2.1'}})\"", "not one `pickwrandom`"),
            ("A \"pickwrandom({{3,'192.0.2.9'}})\"", "neither slot"),
        ] {
            assert!(read(bad).unwrap_err().contains(word), "{bad}");
        }
    }
}
