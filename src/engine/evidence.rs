//! Recorded looks: as lines of a file, and judged again by the same judge.
//!
//! A samples file has one JSON object per look and region; looks are in order of time. Lines with the same `at` are one
//! look. What a rollout records comes out in this form, and gives the same verdicts, bit for bit.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::event::{Event, Fact};
use super::judge::Judge;
use super::poll::{Measured, Poll, RegionPoll};
use super::rollout::Rollout;
use super::verdict::Judgement;
use crate::spec::plan::Plan;
use crate::units::{AnalysisName, Generation, Millis, RegionName, Timestamp, Weight};

/// One line of a samples file: what a look found in one region.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    /// End of the window, in ms since 1970.
    pub at: Timestamp,
    /// The stage whose weights stood, from 0.
    #[serde(default)]
    pub stage: usize,
    /// Its step, from 0.
    #[serde(default)]
    pub step: usize,
    /// The generation of the weights; without one, each change of stage or step is a new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<Generation>,
    /// Which region; none for a look that reached no region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<RegionName>,
    /// Canary weight in hundredths of a percent.
    #[serde(default)]
    pub weight: Weight,
    /// Share of the requests that the canary got copies of, in the same unit.
    #[serde(default, skip_serializing_if = "Weight::is_unset")]
    pub mirror: Weight,
    /// Length of the window in ms.
    #[serde(default)]
    pub window: Millis,
    /// For how many ms the canary's instances have been ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_for: Option<Millis>,
    /// By analysis.
    #[serde(default)]
    pub measured: BTreeMap<AnalysisName, Measured>,
}

/// One look, and where the rollout stood.
#[derive(Debug, Clone, PartialEq)]
pub struct Look {
    /// Index of the stage.
    pub stage: usize,
    /// Index of the step.
    pub step: usize,
    /// What was found.
    pub poll: Poll,
}

/// Why a list of samples makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Looks go forward in time.
    #[error("`at` {} is before the line above it", at.0)]
    Backwards {
        /// Index of the sample.
        index: usize,
        /// Its time.
        at: Timestamp,
    },
    /// One look has one line per region.
    #[error("the look at {} has {region} twice", at.0)]
    Twice {
        /// Index of the sample.
        index: usize,
        /// The look.
        at: Timestamp,
        /// The region.
        region: RegionName,
    },
    /// All lines of a look are of one stage, step and generation.
    #[error("the look at {} is of several stages, steps or generations", at.0)]
    Mixed {
        /// Index of the sample.
        index: usize,
        /// The look.
        at: Timestamp,
    },
    /// A stage or step that the plan does not have.
    #[error("the plan has no step {step} of stage {stage} (both count from 0)")]
    NoSuchStep {
        /// Index of the sample.
        index: usize,
        /// The stage.
        stage: usize,
        /// The step.
        step: usize,
    },
    /// A region that the plan does not have.
    #[error("the plan has no region {region}")]
    NoSuchRegion {
        /// Index of the sample.
        index: usize,
        /// The region.
        region: RegionName,
    },
    /// The counts contradict each other.
    #[error("{analysis}: {what}")]
    Counts {
        /// Index of the sample.
        index: usize,
        /// The analysis.
        analysis: AnalysisName,
        /// What is wrong.
        what: &'static str,
    },
}

impl Error {
    /// Index of the sample that is wrong.
    #[must_use]
    pub fn index(&self) -> usize {
        match self {
            Self::Backwards { index, .. }
            | Self::Twice { index, .. }
            | Self::Mixed { index, .. }
            | Self::NoSuchStep { index, .. }
            | Self::NoSuchRegion { index, .. }
            | Self::Counts { index, .. } => *index,
        }
    }
}

/// The lines of one look.
#[must_use]
pub fn samples(look: &Look) -> Vec<Sample> {
    let Look { stage, step, poll } = look;
    let empty = Sample {
        at: poll.at,
        stage: *stage,
        step: *step,
        generation: Some(poll.generation),
        region: None,
        weight: Weight::ZERO,
        mirror: Weight::ZERO,
        window: Millis::ZERO,
        ready_for: None,
        measured: BTreeMap::new(),
    };
    if poll.regions.is_empty() {
        return vec![empty];
    }
    let of_region = |(name, found): (&RegionName, &RegionPoll)| Sample {
        region: Some(name.clone()),
        weight: found.weight,
        mirror: found.mirror,
        window: found.window,
        ready_for: found.ready_for,
        measured: found.measured.clone(),
        ..empty.clone()
    };
    poll.regions.iter().map(of_region).collect()
}

/// The looks that lines of a samples file make.
///
/// # Errors
/// They are out of order, contradict each other, or do not fit the plan.
pub fn looks(plan: &Plan, samples: Vec<Sample>) -> Result<Vec<Look>, Error> {
    let mut looks: Vec<Look> = Vec::new();
    let mut generation = Generation(1);
    for (index, sample) in samples.into_iter().enumerate() {
        fits(plan, index, &sample)?;
        let Sample { at, stage, step, region, .. } = sample;
        let before = looks.last().map(|look| (look.poll.at, look.stage, look.step));
        if before.is_some_and(|(before, _, _)| at < before) {
            return Err(Error::Backwards { index, at });
        }
        if before.is_some_and(|(_, was, then)| (was, then) != (stage, step)) {
            generation = generation.next();
        }
        generation = sample.generation.unwrap_or(generation);
        if before.is_none_or(|(before, _, _)| at > before) {
            let poll = Poll { at, generation, regions: BTreeMap::new() };
            looks.push(Look { stage, step, poll });
        }
        let Some(look) = looks.last_mut() else { continue };
        if (look.stage, look.step, look.poll.generation) != (stage, step, generation) {
            return Err(Error::Mixed { index, at });
        }
        let Some(region) = region else { continue };
        let found = RegionPoll {
            weight: sample.weight,
            mirror: sample.mirror,
            window: sample.window,
            ready_for: sample.ready_for,
            measured: sample.measured,
        };
        if look.poll.regions.insert(region.clone(), found).is_some() {
            return Err(Error::Twice { index, at, region });
        }
    }
    Ok(looks)
}

fn fits(plan: &Plan, index: usize, sample: &Sample) -> Result<(), Error> {
    let Sample { stage, step, .. } = *sample;
    if plan.stages.get(stage).is_none_or(|stage| step >= stage.steps.len()) {
        return Err(Error::NoSuchStep { index, stage, step });
    }
    if let Some(region) = sample.region.as_ref().filter(|name| !plan.regions.contains_key(*name)) {
        return Err(Error::NoSuchRegion { index, region: region.clone() });
    }
    for (analysis, measured) in &sample.measured {
        if let Some(what) = contradiction(measured) {
            return Err(Error::Counts { index, analysis: analysis.clone(), what });
        }
    }
    Ok(())
}

fn contradiction(measured: &Measured) -> Option<&'static str> {
    let count = |value: f64| value.is_finite() && value >= 0.0;
    match measured {
        Measured::Counts { canary, stable } => [canary, stable].iter().find_map(|arm| {
            if !count(arm.bad) || !count(arm.total) {
                Some("a count is not a number from 0 on")
            } else if arm.bad > arm.total {
                Some("more bad events than events")
            } else {
                None
            }
        }),
        Measured::Histogram { bounds, canary, stable } => {
            let rises = |values: &[f64]| values.is_sorted();
            if !bounds.windows(2).all(|pair| pair[0] < pair[1]) {
                return Some("bounds do not rise");
            }
            [canary, stable].iter().find_map(|arm| {
                let last = arm.cumulative.last().copied().unwrap_or_default();
                if arm.cumulative.len() != bounds.len() {
                    Some("not one count per bound")
                } else if !arm.cumulative.iter().all(|it| count(*it)) || !count(arm.total) {
                    Some("a count is not a number from 0 on")
                } else if !rises(&arm.cumulative) || last > arm.total {
                    Some("counts of a histogram rise up to its total")
                } else {
                    None
                }
            })
        }
        _ => None,
    }
}

/// Judges look after look, as it was done live, until `each` says that it is enough.
pub fn judge(
    plan: &Plan,
    looks: &[Look],
    mut each: impl FnMut(&Look, &Judgement) -> bool,
) -> Judge {
    let mut judge = Judge::new(plan);
    for look in looks {
        judge.enter(plan, look.stage, look.step, look.poll.generation);
        let judgement = judge.observe(plan, &look.poll);
        if !each(look, &judgement) {
            break;
        }
    }
    judge
}

/// The looks of a rollout out of its facts, and what was recorded of the verdict after each, where something was.
#[must_use]
pub fn of_rollout(facts: &[Fact]) -> Option<Recorded> {
    let mut state: Option<Rollout> = None;
    let mut looks: Vec<(Look, Option<Judgement>)> = Vec::new();
    for fact in facts {
        if let (Some(state), Event::Looked(poll)) = (&state, &fact.event) {
            let look = Look { stage: state.stage, step: state.step, poll: (**poll).clone() };
            looks.push((look, None));
        }
        if let (Some(judgement), Some((look, recorded))) =
            (judgement(&fact.event), looks.last_mut())
            && judgement.at == look.poll.at
        {
            *recorded = Some(judgement.clone());
        }
        match &mut state {
            Some(state) => state.apply(&fact.event, fact.at),
            None => state = Rollout::fold(std::slice::from_ref(fact)),
        }
    }
    Some(Recorded { state: state?, looks })
}

/// What a rollout recorded of its evidence.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    /// The rollout, with its plan.
    pub state: Rollout,
    /// Each look, and the verdict where it was recorded.
    pub looks: Vec<(Look, Option<Judgement>)>,
}

fn judgement(event: &Event) -> Option<&Judgement> {
    match event {
        Event::Judged(judgement)
        | Event::StagePassed { judgement, .. }
        | Event::StageUndecided { judgement, .. }
        | Event::RollbackStarted { judgement: Some(judgement), .. } => Some(judgement),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::poll::Arm;
    use crate::sim::sample::plan;

    fn counts(bad: f64, total: f64) -> Measured {
        Measured::Counts { canary: Arm { bad, total }, stable: Arm { bad: 0.0, total } }
    }

    fn line(at: u64, region: &str, stage: usize) -> Sample {
        Sample {
            mirror: Weight::ZERO,
            at: Timestamp(at),
            stage,
            step: 0,
            generation: None,
            region: Some(region.parse().unwrap()),
            weight: Weight::from_percent(5.0).unwrap(),
            window: Millis(1_000),
            ready_for: None,
            measured: [("error_rate".parse().unwrap(), counts(1.0, 10.0))].into(),
        }
    }

    #[test]
    fn lines_make_looks_and_looks_make_the_same_lines() {
        let names: Vec<_> = plan().regions.keys().map(ToString::to_string).collect();
        let lines = vec![
            line(1_000, &names[0], 0),
            line(1_000, &names[1], 0),
            Sample { region: None, measured: BTreeMap::new(), ..line(2_000, &names[0], 0) },
            line(3_000, &names[0], 1),
        ];
        let looks = looks(&plan(), lines).unwrap();
        let generations: Vec<_> = looks.iter().map(|look| look.poll.generation.0).collect();
        assert_eq!(generations, [1, 1, 2]);
        let regions: Vec<_> = looks.iter().map(|look| look.poll.regions.len()).collect();
        assert_eq!(regions, [2, 0, 1]);
        let lines: Vec<_> = looks.iter().flat_map(samples).collect();
        let text = serde_json::to_string(&lines).unwrap();
        let again: Vec<Sample> = serde_json::from_str(&text).unwrap();
        assert_eq!(super::looks(&plan(), again), Ok(looks));
    }

    #[test]
    fn what_contradicts_itself_is_refused_with_its_place() {
        let plan = plan();
        let name = plan.regions.keys().next().unwrap().to_string();
        let good = line(1_000, &name, 0);
        let bad = |change: fn(&mut Sample)| {
            let mut sample = line(2_000, &name, 0);
            change(&mut sample);
            looks(&plan, vec![good.clone(), sample]).map(drop).unwrap_err()
        };
        let number = |value: f64| [("error_rate".parse().unwrap(), counts(value, 10.0))].into();
        let wrong = [
            bad(|it| it.at = Timestamp(999)),
            bad(|it| it.at = Timestamp(1_000)),
            bad(|it| (it.at, it.stage) = (Timestamp(1_000), 1)),
            bad(|it| it.stage = 99),
            bad(|it| it.region = Some("mars".parse().unwrap())),
        ];
        assert!(matches!(wrong[0], Error::Backwards { .. }), "{wrong:?}");
        assert!(matches!(wrong[1], Error::Twice { .. }), "{wrong:?}");
        assert!(matches!(wrong[2], Error::Mixed { .. }), "{wrong:?}");
        assert!(matches!(wrong[3], Error::NoSuchStep { .. }), "{wrong:?}");
        assert!(matches!(wrong[4], Error::NoSuchRegion { .. }), "{wrong:?}");
        assert!(wrong.iter().all(|error| error.index() == 1), "{wrong:?}");
        for value in [11.0, -1.0, f64::NAN, f64::INFINITY] {
            let sample = Sample { measured: number(value), ..good.clone() };
            let error = looks(&plan, vec![sample]).unwrap_err();
            assert!(matches!(error, Error::Counts { .. }), "{value}: {error}");
        }
    }
}
