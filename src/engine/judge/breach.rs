//! What is proven to be wrong, in one sentence.

use super::harm::{Role, SetHarm};
use super::monitors::MonitorSet;
use super::numbers::only_holds;
use super::outcome::Scene;
use super::{Judge, LOG_HOLD};
use crate::engine::verdict::Breach;
use crate::spec::plan::{Criterion, Test};
use crate::stats::Arm;
use crate::units::RegionName;

/// What a proof rests on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Concurrent,
    NonConcurrent,
}

impl Judge {
    /// What rolls back, else what holds; `None` while nothing is proven.
    pub(super) fn breach(&self, scene: &Scene) -> Option<Breach> {
        let rolls = |harm: &SetHarm| harm.role == Role::RollsBack && !harm.is_shared;
        let named = |wanted: &dyn Fn(&SetHarm) -> bool| self.sets_where(scene, wanted);
        let proven = named(&|harm| rolls(harm) && harm.is_proven);
        let before = named(&|harm| rolls(harm) && harm.is_proven_nonconcurrent);
        let held = named(&|harm| only_holds(harm.role) && harm.is_proven && !harm.is_shared);
        let held_before =
            named(&|harm| only_holds(harm.role) && harm.is_proven_nonconcurrent && !harm.is_shared);
        self.breach_of_checks(scene)
            .or_else(|| self.breach_of(scene, &proven, Kind::Concurrent, false))
            .or_else(|| self.combined(scene))
            .or_else(|| {
                let only_holds = !scene.harm.nonconcurrent_rolls_back;
                self.breach_of(scene, &before, Kind::NonConcurrent, only_holds)
            })
            .or_else(|| self.breach_of(scene, &held, Kind::Concurrent, true))
            .or_else(|| self.breach_of(scene, &held_before, Kind::NonConcurrent, true))
    }

    fn sets_where(&self, scene: &Scene, wanted: &dyn Fn(&SetHarm) -> bool) -> Vec<&MonitorSet> {
        let pairs = self.sets.iter().zip(&scene.harm.sets);
        let mut sets: Vec<_> = pairs.filter(|(_, harm)| wanted(harm)).collect();
        sets.sort_by(|one, other| other.1.log.total_cmp(&one.1.log));
        sets.into_iter().map(|(set, _)| set).collect()
    }

    fn breach_of(
        &self,
        scene: &Scene,
        sets: &[&MonitorSet],
        kind: Kind,
        only_holds: bool,
    ) -> Option<Breach> {
        let strongest = sets.first()?;
        let users = || sets.iter().flat_map(|set| self.users(scene.plan, set));
        let rule = self.users(scene.plan, strongest).next()?;
        let log = match kind {
            Kind::Concurrent => strongest.log_harm(),
            Kind::NonConcurrent => strongest.log_harm_nonconcurrent()?,
        } + strongest.weight.ln();
        let regions = regions(strongest, kind);
        let mut text = format!(
            "`{}` ({}) is {}: {}; {}",
            rule.text,
            place(rule),
            if scene.plan.triggers.iter().any(|it| it.id == rule.id) { "met" } else { "violated" },
            self.facts(scene, strongest, &regions),
            odds(log),
        );
        if kind == Kind::NonConcurrent {
            text += "; against stable before 100 %, non-concurrent, unverified";
        }
        let others = users().count().saturating_sub(1);
        if others > 0 {
            text += &format!("; {others} more proven");
        }
        let criteria = users().map(|criterion| criterion.id.clone()).collect();
        Some(Breach { criteria, regions, text, only_holds })
    }

    /// No rule alone is proven, all of them together are.
    fn combined(&self, scene: &Scene) -> Option<Breach> {
        if !scene.harm.is_proven(scene.plan) {
            return None;
        }
        let sets = self.sets_where(scene, &|harm| {
            harm.role == Role::RollsBack && !harm.is_shared && harm.log > 0.0
        });
        let part = |set: &&MonitorSet| {
            let rule = self.users(scene.plan, set).next()?;
            let facts = self.facts(scene, set, &regions(set, Kind::Concurrent));
            Some(format!("`{}` ({}): {facts}", rule.text, place(rule)))
        };
        let parts: Vec<_> = sets.iter().take(2).filter_map(part).collect();
        let regions = sets.first().map(|set| regions(set, Kind::Concurrent)).unwrap_or_default();
        let text = format!(
            "no rule alone is proven, but the evidence together is, {}; most of it: {}",
            odds(scene.harm.log_rollback),
            parts.join("; ")
        );
        Some(Breach { criteria: Vec::new(), regions, text, only_holds: false })
    }

    fn breach_of_checks(&self, scene: &Scene) -> Option<Breach> {
        let dry = |it: &Criterion| {
            scene.plan.analyses.get(&it.analysis).is_some_and(|analysis| analysis.dry_run)
        };
        let mut triggers = scene.plan.triggers.iter();
        let trigger =
            triggers.find(|it| it.test == Test::Holds && !dry(it) && self.check_failed(it))?;
        let text = format!("`{}` ({}) failed at its last three runs", trigger.text, place(trigger));
        Some(Breach {
            criteria: vec![trigger.id.clone()],
            regions: Vec::new(),
            text,
            only_holds: false,
        })
    }

    /// The counts where harm is strongest, else everywhere.
    fn facts(&self, scene: &Scene, set: &MonitorSet, regions: &[RegionName]) -> String {
        let place = match regions {
            [] => "all regions together".to_owned(),
            _ => regions.iter().map(RegionName::as_str).collect::<Vec<_>>().join(", "),
        };
        let shown = if regions.is_empty() { &scene.regions } else { regions };
        if let Test::Level { limit, .. } = set.test {
            let value = self.numbers(scene, set).effect;
            let value = value.map_or_else(|| "unknown".to_owned(), |it| format!("{it:.4}"));
            return format!("canary mean {value}, limit {limit}, in {place}");
        }
        let sum = |one: (Arm, Arm), other: (Arm, Arm)| (plus(one.0, other.0), plus(one.1, other.1));
        let counts = shown.iter().filter_map(|region| self.counts_in(set, region));
        let (canary, stable) = counts.fold((Arm::EMPTY, Arm::EMPTY), sum);
        let what = if matches!(set.test, Test::Rate { .. }) { "bad" } else { "slow" };
        format!(
            "canary {} {what} vs stable {} in {place}{}",
            share(canary),
            share(stable),
            self.effect_in_words(scene, set)
        )
    }

    fn effect_in_words(&self, scene: &Scene, set: &MonitorSet) -> String {
        let Some(effect) = self.numbers(scene, set).effect else { return String::new() };
        match set.test {
            Test::Rate { factor: 0.0, .. } => String::new(),
            Test::Rate { factor, offset } if factor == 1.0 || offset > 0.0 => {
                format!(", {:+.2} points", 100.0 * effect)
            }
            Test::QuantileLimit { quantile, .. } => {
                format!(", p{} {effect:.4}", 100.0 * quantile)
            }
            _ => format!(", {effect:.2} times stable's"),
        }
    }
}

/// File and line where a rule was written.
pub(super) fn place(criterion: &Criterion) -> String {
    format!("{}:{}", criterion.at.file, criterion.at.line)
}

/// Evidence of `log` as on-call people read it: how rarely a version within its limits would look like this.
pub(super) fn odds(log: f64) -> String {
    let odds = log.max(0.0).exp();
    if odds < 1e9 {
        format!("odds 1 in {odds:.0}")
    } else {
        "odds below 1 in 1000000000".to_owned()
    }
}

fn regions(set: &MonitorSet, kind: Kind) -> Vec<RegionName> {
    match kind {
        Kind::Concurrent => set.concurrent.regions_above(LOG_HOLD),
        Kind::NonConcurrent => {
            set.nonconcurrent.as_ref().map(|pool| pool.regions_above(LOG_HOLD)).unwrap_or_default()
        }
    }
}

fn plus(one: Arm, other: Arm) -> Arm {
    Arm::new(one.events + other.events, one.requests + other.requests)
}

fn share(arm: Arm) -> String {
    match arm.rate() {
        Some(rate) => format!("{:.0}/{:.0} ({:.2} %)", arm.events, arm.requests, 100.0 * rate),
        None => "nothing".to_owned(),
    }
}
