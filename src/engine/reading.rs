//! What follows from reading a region's load balancers: confirmation, drift, or nothing.

use super::decide::Turn;
use super::event::{Actor, ArmBackends, Cause, Drift, Event};
use super::input::RegionReading;
use super::rollout::{Phase, RegionState};
use crate::spec::plan::Authority;
use crate::units::{Generation, RegionName};

/// Takes a reading in. One that was asked for under an older generation says nothing about now.
pub(super) fn take(turn: &mut Turn, reading: &RegionReading) {
    if reading.asked_at != turn.state.generation {
        return;
    }
    let Some(region) = turn.state.regions.get(&reading.region).cloned() else { return };
    see_backends(turn, reading, &region);
    if reading.asked_at != turn.state.generation {
        return;
    }
    if turn.state.phase == Phase::Preparing {
        return record_read(turn, reading, &region, None);
    }
    if let Some(found) = reading.generation.filter(|&found| found > turn.state.generation) {
        return newer(turn, reading, &region, found);
    }
    if matches(turn, reading, &region) {
        let generation = turn.state.generation;
        return record_read(turn, reading, &region, Some(generation));
    }
    // A drifted region stays as it was found until a person says `resume`, or sets the weight again.
    let drifted = region.drift.is_some_and(|kind| kind != Drift::Restart);
    if (region.confirmed.is_some() || drifted)
        && reading.settled
        && reading.reach != region.wanted()
    {
        return changed(turn, reading, &region);
    }
    if drifted {
        return;
    }
    record_read(turn, reading, &region, None);
}

/// The reading is the wanted weight of this generation on every instance.
fn matches(turn: &Turn, reading: &RegionReading, region: &RegionState) -> bool {
    if !reading.settled {
        return false;
    }
    match turn.state.plan.authority {
        // Whatever an operator set by hand is what is judged; an end is one only where it really is.
        Authority::Observe => {
            let ends = matches!(turn.state.phase, Phase::Promoting | Phase::RollingBack);
            !ends || reading.reach == region.wanted()
        }
        // The balancer carries no mark of ours while weights are raised by hand.
        Authority::RollbackOnly => reading.reach == region.wanted(),
        Authority::Full => {
            // Where a generation was stored before, a reading without one is not of now.
            let marked = match reading.generation {
                Some(found) => found == turn.state.generation,
                None => region.stored.is_none(),
            };
            reading.reach == region.wanted() && marked
        }
    }
}

/// A newer generation has been here. Forward that is a person's matter; the way back is always open.
fn newer(turn: &mut Turn, reading: &RegionReading, region: &RegionState, found: Generation) {
    match (turn.state.phase, turn.state.cause.clone()) {
        (Phase::RollingBack, Some(cause)) => {
            turn.record(Event::RollbackStarted {
                cause,
                generation: found.next(),
                judgement: None,
            });
        }
        // What the newer one wrote is not wanted here, so such a region never settles; its largest weight decides.
        _ if turn.state.phase.is_live()
            && reading.reach.is_none()
            && !region.wanted().is_none() =>
        {
            turn.roll_back(Cause::HandEdit { region: reading.region.clone() }, false, None);
        }
        _ => drift(turn, reading, region, Drift::Newer),
    }
}

/// Somebody took the canary out of a region.
fn is_taken_back(reading: &RegionReading, region: &RegionState) -> bool {
    reading.settled && reading.reach.is_none() && !region.wanted().is_none()
}

/// A confirmed weight is no longer what it was, and every instance says so.
fn changed(turn: &mut Turn, reading: &RegionReading, region: &RegionState) {
    if restarted(reading, region) {
        drift(turn, reading, region, Drift::Restart);
    } else if reading.generation.is_some_and(|found| Some(found) < region.stored) {
        // A state of the past, from a cache or a copy: not an edit of now.
        record_read(turn, reading, region, None);
    } else if !turn.state.phase.is_live() {
        // Rolling back or over: the wanted weight is simply set again.
        record_read(turn, reading, region, None);
    } else if reading.reach > region.wanted() {
        drift(turn, reading, region, Drift::TowardsCanary);
    } else if is_taken_back(reading, region) {
        turn.roll_back(Cause::HandEdit { region: reading.region.clone() }, false, None);
    } else {
        drift(turn, reading, region, Drift::Ceiling);
    }
}

/// The weights are gone because the balancer started anew: its own mark says so, or ours is lost.
fn restarted(reading: &RegionReading, region: &RegionState) -> bool {
    let marks = (&region.restart_marker, &reading.restart_marker);
    let started = matches!(marks, (Some(before), Some(now)) if before != now);
    let lost_mark = region.stored.is_some() && reading.generation.is_none();
    !reading.keeps_weights && (started || lost_mark)
}

fn drift(turn: &mut Turn, reading: &RegionReading, region: &RegionState, kind: Drift) {
    let known = region.drift == Some(kind) && region.seen() == Some(reading.reach);
    if known {
        return;
    }
    turn.record(Event::DriftFound {
        region: reading.region.clone(),
        observed: reading.reach.weight,
        mirror: reading.reach.mirror,
        desired: region.desired,
        kind,
        newer: reading.generation.filter(|_| kind == Drift::Newer),
    });
    let holds = kind != Drift::Restart && turn.state.phase.is_live() && turn.state.paused.is_none();
    if holds {
        let reason =
            format!("the weight in {} was changed to {} by hand", reading.region, reading.reach);
        turn.record(Event::Paused { by: Actor::tidegate(), reason });
    }
}

/// Records a reading, if it says anything new.
fn record_read(
    turn: &mut Turn,
    reading: &RegionReading,
    region: &RegionState,
    confirmed: Option<Generation>,
) {
    let unsettled =
        || (!reading.settled).then(|| "not every instance was seen and agrees".to_owned());
    let note = reading.note.clone().or_else(unsettled);
    let known = region.seen() == Some(reading.reach)
        && region.confirmed == confirmed
        && region.note == note
        && (confirmed.is_none() || region.restart_marker == reading.restart_marker)
        && (confirmed.is_none() || region.stored == reading.generation)
        && (confirmed.is_none() || region.drift.is_none());
    if known {
        return;
    }
    turn.record(Event::RegionRead {
        region: reading.region.clone(),
        weight: reading.reach.weight,
        mirror: reading.reach.mirror,
        confirmed,
        stored: reading.generation,
        restart_marker: reading.restart_marker.clone(),
        note,
    });
}

/// Backends decide at once: a canary without any goes back, unless stable has none either.
fn see_backends(turn: &mut Turn, reading: &RegionReading, region: &RegionState) {
    let Some(backends) = reading.backends else { return };
    if region.backends != Some(backends) {
        turn.record(Event::BackendsSeen { region: reading.region.clone(), backends });
    }
    let exposed = turn.state.phase.is_live() && !reading.reach.is_none();
    if exposed && canary_is_dead(backends) {
        turn.roll_back(Cause::CanaryUnhealthy { region: reading.region.clone() }, false, None);
    }
}

fn canary_is_dead(backends: ArmBackends) -> bool {
    backends.canary_healthy == 0 && backends.stable_healthy > 0
}

/// A call may have taken effect: nothing is known of the region until it is read.
pub(super) fn effect_unknown(
    turn: &mut Turn,
    region: &RegionName,
    generation: Generation,
    what: &str,
) {
    let current = generation == turn.state.generation;
    let known = turn.state.regions.get(region).is_none_or(|state| state.observed.is_none());
    if current && !known {
        turn.record(Event::EffectUnknown {
            region: region.clone(),
            generation,
            what: what.to_owned(),
        });
    }
}
