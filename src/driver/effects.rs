//! Acting on one region: every target at once, and one answer for all of them together.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join_all;

use crate::engine::event::{ArmBackends, ArmSlots};
use crate::engine::input::{Input, RegionReading};
use crate::faults;
use crate::ports::{LoadBalancer, LoadBalancerError, Reading, Split};
use crate::units::{Generation, Reach, RegionName, SlotName, Weight};

/// Longest time for one call to all targets of a region.
pub const CALL_MAX: std::time::Duration = std::time::Duration::from_secs(15);

/// What is to be done at a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Only look.
    Read,
    /// Set what reaches the canary.
    Set(Reach),
}

impl Effect {
    /// A place where a test may let the process die, if this changes weights.
    pub(super) fn fault(self, place: &str) {
        if matches!(self, Self::Set(_)) {
            faults::at(place);
        }
    }
}

/// The load balancers of one region and the roles of its slots.
#[derive(Clone)]
pub struct RegionBalancers {
    /// Which.
    pub region: RegionName,
    /// Its targets.
    pub targets: Vec<Arc<dyn LoadBalancer>>,
}

/// Does it at every target, and says what the engine should know. Never fails: a failure is an input, too.
pub async fn perform(
    balancers: &RegionBalancers,
    slots: &ArmSlots,
    effect: Effect,
    generation: Generation,
) -> Input {
    let region = &balancers.region;
    let calls =
        balancers.targets.iter().map(|target| call(target.as_ref(), slots, effect, generation));
    let Ok(answers) = tokio::time::timeout(CALL_MAX, join_all(calls)).await else {
        let what = format!("no answer within {} s", CALL_MAX.as_secs());
        return Input::EffectUnknown { region: region.clone(), generation, what };
    };
    let mut readings = Vec::with_capacity(answers.len());
    for answer in answers {
        match answer {
            Ok(reading) => readings.push(reading),
            Err(error) => {
                let what = error.to_string();
                return Input::EffectUnknown { region: region.clone(), generation, what };
            }
        }
    }
    let together = together(region.clone(), slots, generation, &readings);
    let mut targets = balancers.targets.iter();
    let keeps_weights = targets.all(|target| target.capabilities().weights_survive_restart);
    Input::Read(Box::new(RegionReading { keeps_weights, ..together }))
}

async fn call(
    target: &dyn LoadBalancer,
    slots: &ArmSlots,
    effect: Effect,
    generation: Generation,
) -> Result<Reading, LoadBalancerError> {
    match effect {
        Effect::Read => target.read().await,
        Effect::Set(reach) => target.set(&split(slots, reach), generation).await,
    }
}

/// Roles become slots only here.
#[must_use]
pub fn split(slots: &ArmSlots, canary: impl Into<Reach>) -> Split {
    let Reach { weight, mirror } = canary.into();
    let weights = [(slots.canary.clone(), weight), (slots.stable.clone(), weight.complement())];
    Split::from(weights).with_copies(slots.canary.clone(), mirror)
}

/// One reading of the region from those of its targets: what gives the canary most, the oldest generation.
#[must_use]
pub fn together(
    region: RegionName,
    slots: &ArmSlots,
    asked_at: Generation,
    readings: &[Reading],
) -> RegionReading {
    let mut settled = !readings.is_empty();
    let mut reach = Reach::NONE;
    for reading in readings {
        settled &= reading.settled && consistent(&reading.split, slots);
        let instances = reading.instances.iter().filter_map(|instance| instance.split.as_ref());
        for split in instances.chain([&reading.split]) {
            reach = reach.max(reached(split, &slots.canary));
        }
    }
    let agree = readings.iter().all(|reading| reached(&reading.split, &slots.canary) == reach);
    let mut notes: Vec<_> = readings.iter().filter_map(|reading| reading.note.clone()).collect();
    if readings.iter().any(|reading| reading.split.copies.contains_key(&slots.stable)) {
        notes
            .push(format!("requests are copied to {}, which has the stable version", slots.stable));
    }
    let markers: Vec<_> =
        readings.iter().filter_map(|reading| reading.restart_marker.clone()).collect();
    let generations: Option<Vec<_>> = readings.iter().map(|reading| reading.generation).collect();
    RegionReading {
        region,
        asked_at,
        reach,
        settled: settled && agree,
        generation: generations.and_then(|all| all.into_iter().min()),
        restart_marker: (!markers.is_empty()).then(|| markers.join(" ")),
        keeps_weights: false,
        backends: backends(slots, readings),
        note: (!notes.is_empty()).then(|| notes.join("; ")),
    }
}

fn reached(split: &Split, slot: &SlotName) -> Reach {
    let of = |shares: &BTreeMap<SlotName, Weight>| shares.get(slot).copied().unwrap_or_default();
    Reach { weight: of(split), mirror: of(&split.copies) }
}

fn consistent(split: &Split, slots: &ArmSlots) -> bool {
    let canary = reached(split, &slots.canary).weight;
    reached(split, &slots.stable) == canary.complement().into()
}

/// Sums over targets; `None` unless every target sees its backends.
fn backends(slots: &ArmSlots, readings: &[Reading]) -> Option<ArmBackends> {
    let mut sum =
        ArmBackends { canary_healthy: 0, canary_total: 0, stable_healthy: 0, stable_total: 0 };
    for reading in readings {
        let seen = reading.backends.as_ref()?;
        let (canary, stable) = (seen.get(&slots.canary)?, seen.get(&slots.stable)?);
        sum.canary_healthy += canary.healthy;
        sum.canary_total += canary.total;
        sum.stable_healthy += stable.healthy;
        sum.stable_total += stable.total;
    }
    (!readings.is_empty()).then_some(sum)
}
