//! Pass, fail, or why neither: for every criterion and trigger, and for the stage.

use std::collections::BTreeMap;

use super::harm::{Harm, Role};
use super::monitors::MonitorSet;
use super::{Judge, LOG_HOLD};
use crate::engine::poll::Poll;
use crate::engine::verdict::{HoldEvidence, Judgement, Outcome, Undecided, Verdict};
use crate::spec::plan::{Criterion, Plan};
use crate::units::{AnalysisName, Millis, RegionName, Timestamp, Weight};

/// What all verdicts of one poll have in common.
pub(super) struct Scene<'a> {
    pub(super) plan: &'a Plan,
    pub(super) now: Timestamp,
    pub(super) harm: &'a Harm,
    pub(super) regions: Vec<RegionName>,
    /// Those of them whose numbers prove the current stage.
    pub(super) proving: Vec<RegionName>,
    pub(super) hold: Option<HoldEvidence>,
    /// The poll belongs to the weights that are judged.
    pub(super) is_current: bool,
}

impl Judge {
    pub(super) fn judge(&self, plan: &Plan, poll: &Poll, harm: &Harm) -> Judgement {
        let regions = self.canary_regions(plan);
        let hold = self.hold(plan, harm, &regions, poll.at);
        let is_current = self.entered && poll.generation == self.generation;
        let proving = self.proving(plan, &regions);
        let scene = Scene { plan, now: poll.at, harm, regions, proving, hold, is_current };
        let verdicts = self.verdicts(&scene);
        let breach = self.breach(&scene);
        let troubled = breach.is_some() || scene.hold.is_some();
        Judgement {
            at: poll.at,
            generation: poll.generation,
            stage: self.stage_outcome(&scene, &verdicts),
            attribution: if troubled { self.attribution(&scene) } else { None },
            breach,
            verdicts,
            log_harm: harm.log_all,
            data: self.data(plan, &scene.regions, poll.at),
            hold: scene.hold,
        }
    }

    fn hold(
        &self,
        plan: &Plan,
        harm: &Harm,
        regions: &[RegionName],
        now: Timestamp,
    ) -> Option<HoldEvidence> {
        let rolls = |role: Role| role == Role::RollsBack || role == Role::HoldsOnFail;
        let shared = self
            .sets
            .iter()
            .zip(&harm.sets)
            .find(|(set, harm)| rolls(harm.role) && (harm.is_shared || set.was_shared(now)));
        let shared = shared.map(|(set, _)| {
            let text = self.users(plan, set).next().map_or_else(
                || set.analysis.to_string(),
                |criterion| format!("`{}` ({})", criterion.text, super::breach::place(criterion)),
            );
            HoldEvidence::SharedOutage(format!("stable is beyond the limit of {text} as well"))
        });
        let sign = || {
            (harm.log_all >= LOG_HOLD)
                .then_some(HoldEvidence::SignOfHarm { log_harm: harm.log_all })
        };
        shared.or_else(|| self.traffic_hold(regions)).or_else(sign)
    }

    /// Criteria of stages reached so far and triggers that use this test.
    pub(super) fn users<'a>(
        &self,
        plan: &'a Plan,
        set: &'a MonitorSet,
    ) -> impl Iterator<Item = &'a Criterion> + 'a {
        let reached = plan.stages.iter().take(self.stage + 1).flat_map(|stage| &stage.criteria);
        let all = plan.triggers.iter().chain(reached);
        all.filter(|it| it.analysis == set.analysis && it.test == set.test)
    }

    /// Statistical criteria of stages reached so far, the checks of this one, and the triggers.
    fn verdicts(&self, scene: &Scene) -> Vec<Verdict> {
        let stages = scene.plan.stages.iter().enumerate().take(self.stage + 1);
        let criteria = stages.flat_map(|(index, stage)| {
            let applies = move |it: &&Criterion| index == self.stage || it.test.is_statistical();
            stage.criteria.iter().filter(applies).map(|criterion| (criterion, false))
        });
        let triggers = scene.plan.triggers.iter().map(|trigger| (trigger, true));
        criteria
            .chain(triggers)
            .map(|(it, is_trigger)| self.verdict(scene, it, is_trigger))
            .collect()
    }

    fn verdict(&self, scene: &Scene, criterion: &Criterion, is_trigger: bool) -> Verdict {
        let tested =
            |set: &&MonitorSet| set.analysis == criterion.analysis && set.test == criterion.test;
        let found = self.sets.iter().position(|set| tested(&set));
        let (outcome, numbers) = match found {
            None => (
                self.check_outcome(criterion, is_trigger, &scene.regions),
                self.check_numbers(criterion, &scene.regions),
            ),
            Some(index) => (self.outcome(scene, index), self.numbers(scene, &self.sets[index])),
        };
        Verdict {
            criterion: criterion.id.clone(),
            text: criterion.text.clone(),
            source: criterion.at.clone(),
            is_trigger,
            outcome: if scene.is_current { outcome } else { without_pass(outcome) },
            numbers,
            dry_run: scene.plan.analyses.get(&criterion.analysis).is_some_and(|it| it.dry_run),
        }
    }

    /// Whether the test at `index` is kept, broken, or why neither is known. Missing data is never outvoted by old proof.
    fn outcome(&self, scene: &Scene, index: usize) -> Outcome {
        let (set, harm) = (&self.sets[index], &scene.harm.sets[index]);
        if harm.is_proven && !harm.is_shared && harm.role != Role::HoldsUnverified {
            return Outcome::Fail;
        }
        let may_roll_back = harm.role == Role::RollsBack && scene.harm.nonconcurrent_rolls_back;
        if harm.is_proven_nonconcurrent && may_roll_back {
            return Outcome::Fail;
        }
        let doubt = self
            .trouble(scene.plan, &scene.regions, &set.analysis, scene.now)
            .or_else(|| self.unmet(scene, index).map(Undecided::Assumption))
            .or_else(|| self.short_of(scene, set))
            .or_else(|| {
                let regions = set.concurrent.regions_above(LOG_HOLD);
                regions.into_iter().next().map(Undecided::RegionDiffers)
            })
            .or_else(|| {
                let held = scene.hold.as_ref().filter(|_| !set.dry_run);
                held.map(|hold| Undecided::Assumption(in_words(hold)))
            });
        doubt.map_or(Outcome::Pass, Outcome::Undecided)
    }

    /// Which assumption of the test does not hold, so that it cannot pass.
    fn unmet(&self, scene: &Scene, index: usize) -> Option<String> {
        let (set, harm) = (&self.sets[index], &scene.harm.sets[index]);
        let full = |name: &&RegionName| {
            self.regions.get(*name).is_some_and(|region| region.weight == Weight::FULL)
        };
        if harm.is_shared {
            return Some("stable is beyond the same limit".to_owned());
        }
        if set.test.compares_arms()
            && let Some(region) = scene.proving.iter().find(full)
        {
            return Some(format!("nothing concurrent is left to compare with in {region}"));
        }
        if set.has_no_margin() && !self.is_verified(scene.plan, &set.analysis) {
            return Some("\"no increase at all\" cannot be judged without history".to_owned());
        }
        self.edge_too_far(set).map(|quantile| {
            format!("the histogram's edges are too far from the p{}", 100.0 * quantile)
        })
    }

    /// What is still missing to a proof.
    fn short_of(&self, scene: &Scene, set: &MonitorSet) -> Option<Undecided> {
        let requests_min = self.requests_min(scene.plan);
        let requests = self.requests(&scene.proving, &set.analysis);
        let counted = requests.unwrap_or(0.0);
        let (polls, seconds) = self.looked(&scene.proving, &set.analysis);
        // A gauge beside nothing that counts requests cannot wait for any.
        let waits_for_requests = requests.is_some() || !set.is_gauge();
        let log_ok = self.log_ok(scene.plan, set);
        let log_needed = -scene.plan.policy.beta.ln();
        let enough = !waits_for_requests || counted >= requests_min as f64;
        if enough && polls > 0 && log_ok >= log_needed {
            return None;
        }
        let for_requests = remaining(seconds, counted, requests_min as f64);
        let for_evidence = remaining(seconds, log_ok, log_needed).or(set.forecast);
        Some(Undecided::NotEnoughData {
            requests: counted as u64,
            requests_min,
            remaining: for_requests.zip(for_evidence).map(|(one, other)| one.max(other)),
        })
    }

    /// Polls with data and their time at this generation, in the region with most of them.
    pub(super) fn looked(&self, regions: &[RegionName], analysis: &AnalysisName) -> (u64, f64) {
        let tallies = regions.iter().filter_map(|name| {
            let tally = &self.regions.get(name)?.records.get(analysis)?.tally;
            Some((tally.polls, tally.seconds))
        });
        tallies.fold((0, 0.0), |sum, it| (sum.0.max(it.0), sum.1.max(it.1)))
    }

    /// The stage as a whole: every criterion that decides passes, nothing holds, and the triggers have been looking.
    fn stage_outcome(&self, scene: &Scene, verdicts: &[Verdict]) -> Outcome {
        let decides = || verdicts.iter().filter(|verdict| !verdict.dry_run);
        if decides().any(|verdict| verdict.outcome == Outcome::Fail)
            || scene.harm.is_proven(scene.plan)
        {
            return Outcome::Fail;
        }
        let current = scene.plan.stages.get(self.stage);
        let own = |verdict: &&Verdict| {
            current.is_some_and(|it| it.criteria.iter().any(|it| it.id == verdict.criterion))
        };
        let doubts = decides().filter(own).filter_map(|verdict| match &verdict.outcome {
            Outcome::Undecided(why) => Some(why.clone()),
            _ => None,
        });
        let doubt = doubts
            .min_by_key(gravity)
            .or_else(|| scene.hold.as_ref().map(|hold| Undecided::Assumption(in_words(hold))))
            .or_else(|| self.unwatched(scene));
        match doubt {
            Some(why) => Outcome::Undecided(why),
            None if scene.is_current && current.is_some() => Outcome::Pass,
            None => Outcome::Undecided(Undecided::NotEnoughData {
                requests: 0,
                requests_min: self.requests_min(scene.plan),
                remaining: None,
            }),
        }
    }

    /// A trigger that has no data now, or, in a stage of checks alone, not enough of it in some region.
    fn unwatched(&self, scene: &Scene) -> Option<Undecided> {
        let Scene { plan, regions, now, .. } = scene;
        let dry = |it: &&Criterion| plan.analyses.get(&it.analysis).is_some_and(|it| it.dry_run);
        let stage = plan.stages.get(self.stage)?;
        let only_checks = !stage.criteria.iter().any(|it| it.test.is_statistical() && !dry(&it));
        let mut triggers = plan.triggers.iter().filter(|it| it.test.is_statistical() && !dry(it));
        triggers.find_map(|trigger| {
            let trouble = self.trouble(plan, regions, &trigger.analysis, *now);
            trouble.or_else(|| {
                let rare = only_checks.then(|| {
                    regions.iter().find_map(|name| self.too_few(plan, name, &trigger.analysis))
                });
                rare.flatten()
            })
        })
    }

    /// Too few canary requests in one region.
    fn too_few(
        &self,
        plan: &Plan,
        region: &RegionName,
        analysis: &AnalysisName,
    ) -> Option<Undecided> {
        let requests_min = self.requests_min(plan);
        let one = std::slice::from_ref(region);
        let (polls, seconds) = self.looked(one, analysis);
        let counted = self.requests_in(region, analysis);
        let is_level = self.sets.iter().any(|set| set.analysis == *analysis && set.is_gauge());
        let requests = counted.unwrap_or(0.0);
        let enough = requests >= requests_min as f64 || (counted.is_none() && is_level);
        (!enough || polls == 0).then(|| Undecided::NotEnoughData {
            requests: requests as u64,
            requests_min,
            remaining: remaining(seconds, requests, requests_min as f64),
        })
    }

    /// Whether history is known of `analysis` in every region of the plan.
    pub(super) fn is_verified(&self, plan: &Plan, analysis: &AnalysisName) -> bool {
        plan.regions.keys().all(|region| self.history.of(analysis, region).is_some())
    }

    pub(super) fn numbers_by_region(&self, set: &MonitorSet) -> BTreeMap<RegionName, f64> {
        let logs = set.concurrent.regions.iter().map(|(name, it)| (name.clone(), it.log_bad()));
        logs.filter(|(_, log)| log.is_finite()).collect()
    }
}

/// Time until `now` has grown to `wanted` as it grew in the `seconds` so far; `None` when it does not grow.
fn remaining(seconds: f64, now: f64, wanted: f64) -> Option<Millis> {
    if now >= wanted {
        return Some(Millis::ZERO);
    }
    let left = seconds * (wanted - now) / now;
    // More than a year is not an estimate.
    (now > 0.0 && left < 3.2e7).then_some(Millis((left * 1_000.0) as u64))
}

/// What is worse is said first.
fn gravity(why: &Undecided) -> u8 {
    match why {
        Undecided::SourceError(_) => 0,
        Undecided::NoData(_) => 1,
        Undecided::CheckNotHeld(_) => 2,
        Undecided::RegionDiffers(_) => 3,
        Undecided::Assumption(_) => 4,
        Undecided::NotEnoughData { .. } => 5,
    }
}

/// A poll of other weights proves harm, but nothing about these.
fn without_pass(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Pass => {
            Outcome::Undecided(Undecided::Assumption("measured under other weights".to_owned()))
        }
        other => other,
    }
}

fn in_words(hold: &HoldEvidence) -> String {
    match hold {
        HoldEvidence::SignOfHarm { log_harm } => {
            format!("a sign of harm, {}", super::breach::odds(*log_harm))
        }
        HoldEvidence::SharedOutage(text) => text.clone(),
        HoldEvidence::TrafficDoesNotFollow { region, observed, confirmed } => format!(
            "traffic does not follow the weight in {region}: {:.1} % where {:.1} % are confirmed",
            100.0 * observed,
            100.0 * confirmed
        ),
    }
}
