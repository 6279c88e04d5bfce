//! What goes over the line between Tidegate and a load balancer of the operator's own, and how far it is believed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ports::{Backends, InstanceReading, Reading, Split};
use crate::units::{Generation, SlotName, Weight, shown};

/// Most instances of an answer.
const INSTANCES_MAX: usize = 10_000;

/// What is wanted.
#[derive(Debug, Serialize)]
pub struct Wanted<'a> {
    /// `set` or `read`; for programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<&'static str>,
    /// Percent by slot; they sum to 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<BTreeMap<&'a str, f64>>,
    /// Percent of the requests that a slot gets copies of, whose answers nobody gets; left out where none does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copies: Option<BTreeMap<&'a str, f64>>,
    /// Counts up with each change; an older one than was seen is to be refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
}

impl<'a> Wanted<'a> {
    /// A change.
    #[must_use]
    pub fn set(split: &'a Split, generation: Generation) -> Self {
        let percents = |shares: &'a BTreeMap<SlotName, Weight>| {
            shares.iter().map(|(slot, share)| (slot.as_str(), share.percent())).collect()
        };
        Self {
            operation: None,
            weights: Some(percents(split)),
            copies: (!split.copies.is_empty()).then(|| percents(&split.copies)),
            generation: Some(generation.0),
        }
    }
}

/// What the data plane does, as the other side says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Told {
    weights: BTreeMap<String, f64>,
    #[serde(default)]
    copies: BTreeMap<String, f64>,
    settled: Option<bool>,
    generation: Option<u64>,
    restart_marker: Option<String>,
    note: Option<String>,
    backends: Option<BTreeMap<String, Backends>>,
    #[serde(default)]
    instances: Vec<Instance>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Instance {
    name: String,
    weights: Option<BTreeMap<String, f64>>,
    #[serde(default)]
    copies: BTreeMap<String, f64>,
    connected: Option<bool>,
}

/// Reads an answer. `slots`: those of the service; weights have to be for them and sum to 100.
pub fn reading(body: &[u8], slots: &[SlotName; 2]) -> Result<Reading, String> {
    let told: Told = serde_json::from_slice(body)
        .map_err(|error| format!("its answer is not as agreed: {}", shown(&error.to_string())))?;
    if told.instances.len() > INSTANCES_MAX {
        return Err(format!("its answer has more than {INSTANCES_MAX} instances"));
    }
    let split = split(&told.weights, &told.copies, slots)?;
    let mut instances = Vec::with_capacity(told.instances.len());
    for one in &told.instances {
        let weights = one.weights.as_ref();
        let split = weights.map(|weights| self::split(weights, &one.copies, slots)).transpose()?;
        let connected = one.connected.unwrap_or(true);
        instances.push(InstanceReading { name: shown(&one.name), split, connected });
    }
    let agree = instances.iter().all(|one| one.connected && one.split.as_ref() == Some(&split));
    let backends = told.backends.map(|pools| pools_of(&pools, slots)).transpose()?;
    Ok(Reading {
        split,
        // Nobody is confirmed whose own instances say otherwise.
        settled: told.settled.unwrap_or(true) && agree,
        generation: told.generation.map(Generation),
        instances,
        backends,
        restart_marker: told.restart_marker.as_deref().map(shown),
        note: told.note.as_deref().map(shown).or((!agree).then(|| "instances differ".to_owned())),
    })
}

fn split(
    weights: &BTreeMap<String, f64>,
    copies: &BTreeMap<String, f64>,
    slots: &[SlotName; 2],
) -> Result<Split, String> {
    let of = |slot: &SlotName| {
        let percent = weights.get(slot.as_str()).copied();
        let percent = percent.ok_or_else(|| format!("its answer has no weight for `{slot}`"))?;
        Weight::from_percent(percent).map_err(|error| format!("its weight for `{slot}`: {error}"))
    };
    let [first, second] = slots;
    let (one, other) = (of(first)?, of(second)?);
    if weights.len() != 2 || one.complement() != other {
        return Err("the weights of its answer do not sum to 100 over both slots".to_owned());
    }
    let mut split = Split::from([(first.clone(), one), (second.clone(), other)]);
    for (name, percent) in copies {
        let slot = slots.iter().find(|slot| slot.as_str() == name);
        let slot = slot.ok_or_else(|| format!("its answer copies to `{}`", shown(name)))?;
        let share = Weight::from_percent(*percent)
            .map_err(|error| format!("what it copies to `{slot}`: {error}"))?;
        split = split.with_copies(slot.clone(), share);
    }
    Ok(split)
}

fn pools_of(
    pools: &BTreeMap<String, Backends>,
    slots: &[SlotName; 2],
) -> Result<BTreeMap<SlotName, Backends>, String> {
    let of = |slot: &SlotName| {
        let pool = pools.get(slot.as_str()).filter(|pool| pool.healthy <= pool.total);
        let pool = pool.ok_or_else(|| format!("its answer has no sound backends for `{slot}`"))?;
        Ok((slot.clone(), *pool))
    };
    slots.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots() -> [SlotName; 2] {
        ["blue", "green"].map(|slot| slot.parse().unwrap())
    }

    #[test]
    fn a_whole_answer_is_read() {
        let body =
            br#"{"weights": {"blue": 94.5, "green": 5.5}, "generation": 7, "restart_marker": "x",
            "backends": {"blue": {"healthy": 1, "total": 2}, "green": {"healthy": 1, "total": 1}},
            "instances": [{"name": "a", "weights": {"blue": 94.5, "green": 5.5}}]}"#;
        let found = reading(body, &slots()).unwrap();
        assert!(found.settled && found.note.is_none(), "{found:?}");
        assert_eq!(found.generation, Some(Generation(7)));
        assert_eq!(found.split[&slots()[1]].hundredths(), 550);
        assert_eq!(found.backends.unwrap()[&slots()[0]], Backends { healthy: 1, total: 2 });
    }

    #[test]
    fn copies_are_asked_for_and_read() {
        let split = Split::from(slots().map(|slot| {
            let weight = if slot.as_str() == "blue" { Weight::FULL } else { Weight::ZERO };
            (slot, weight)
        }));
        let copied = split.with_copies(slots()[1].clone(), Weight::from_percent(10.0).unwrap());
        let text = serde_json::to_string(&Wanted::set(&copied, Generation(7))).unwrap();
        let asked =
            r#"{"weights":{"blue":100.0,"green":0.0},"copies":{"green":10.0},"generation":7}"#;
        assert_eq!(text, asked);
        assert_eq!(reading(text.as_bytes(), &slots()).unwrap().split, copied);
        for (copies, word) in
            [("{\"red\": 1}", "copies to `red`"), ("{\"green\": 101}", "copies to `green`")]
        {
            let body = format!(r#"{{"weights": {{"blue": 100, "green": 0}}, "copies": {copies}}}"#);
            let error = reading(body.as_bytes(), &slots()).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn an_instance_that_differs_or_is_away_settles_nothing() {
        for instance in [
            r#"{"name": "a", "weights": {"blue": 50, "green": 50}}"#,
            r#"{"name": "a", "connected": false}"#,
            r#"{"name": "a"}"#,
        ] {
            let body =
                format!(r#"{{"weights": {{"blue": 95, "green": 5}}, "instances": [{instance}]}}"#);
            let found = reading(body.as_bytes(), &slots()).unwrap();
            assert!(!found.settled && found.note.is_some(), "{instance}");
        }
    }

    #[test]
    fn nonsense_is_named() {
        for (body, word) in [
            ("", "not as agreed"),
            ("[]", "not as agreed"),
            (r#"{"weights": {"blue": 95}}"#, "no weight for `green`"),
            (r#"{"weights": {"blue": 95, "green": 6}}"#, "do not sum"),
            (r#"{"weights": {"blue": 95, "green": 5, "red": 0}}"#, "do not sum"),
            (r#"{"weights": {"blue": 101, "green": -1}}"#, "its weight for `blue`"),
            (r#"{"weights": {"blue": 1e999, "green": 5}}"#, "not as agreed"),
            (r#"{"weights": {"blue": 95, "green": 5}, "more": 1}"#, "not as agreed"),
            (r#"{"weights": {"blue": 95, "green": 5}, "backends": {}}"#, "no sound backends"),
        ] {
            let error = reading(body.as_bytes(), &slots()).unwrap_err();
            assert!(error.contains(word), "{body}: {error}");
        }
    }
}
