//! The state of one rollout, and the total fold that makes it from facts.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::approval::{self, RollbackAsked, Vote};
use super::event::{ArmBackends, ArmSlots, Cause, Clocks, Drift, Event, Fact, Started};
use super::hooks::{HookState, Standing};
use super::verdict::Judgement;
use crate::spec::plan::{CriterionId, Hook, Plan, Stage, Step};
use crate::units::{Generation, Millis, Reach, RegionName, RolloutId, Timestamp, Version, Weight};

/// Everything known of one rollout; nothing in it is not in the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    /// Which.
    pub id: RolloutId,
    /// The version that is rolled out.
    pub version: Version,
    /// The version that runs.
    pub stable_version: Version,
    /// The frozen plan.
    pub plan: Plan,
    /// Which slot plays which role.
    pub slots: BTreeMap<RegionName, ArmSlots>,
    /// Where in its life it is.
    pub phase: Phase,
    /// Since when it is in this phase.
    pub phase_since: Timestamp,
    /// Index of the current stage.
    pub stage: usize,
    /// Index of the current step within it.
    pub step: usize,
    /// The newest generation.
    pub generation: Generation,
    /// The newest generation that a load balancer was found at; the next one is newer than both.
    pub found: Generation,
    /// Every region of the plan.
    pub regions: BTreeMap<RegionName, RegionState>,
    /// Time that counts, in this step.
    pub clocks: Clocks,
    /// Nothing is raised until `resume`.
    pub paused: Option<Pause>,
    /// Since when only a person can move it, because deciding failed again and again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantined: Option<Timestamp>,
    /// This stage has reached its longest time without proof.
    pub undecided: bool,
    /// Confirming these weights has taken too long, and was said.
    pub overdue: bool,
    /// Missing data has lasted too long, and was said.
    pub data_overdue: bool,
    /// The newest recorded verdict.
    pub judgement: Option<Judgement>,
    /// Criteria that have still to be proven before promotion.
    pub owed: BTreeSet<CriterionId>,
    /// Criteria that were let through without proof.
    pub not_proven: BTreeSet<CriterionId>,
    /// Why it went back, once it has.
    pub cause: Option<Cause>,
    /// Who started it.
    #[serde(default)]
    pub started_by: String,
    /// Approvals of the stage that waits for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub votes: Vec<Vote>,
    /// Somebody asked for the way back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback_asked: Option<RollbackAsked>,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
}

/// Where in its life a rollout is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The idle slots are being looked at.
    Preparing,
    /// The next stage waits for a person.
    Gated,
    /// New weights are wanted and not read back everywhere.
    Shifting,
    /// Weights are confirmed and hold.
    Baking,
    /// All stages are done; the final weights are being confirmed.
    Promoting,
    /// The new version is stable; the previous slot is kept for a while.
    Promoted,
    /// The previous slot is no longer kept.
    Retired,
    /// Canary weight is going to 0 everywhere.
    RollingBack,
    /// Every region was read back at 0.
    RolledBack,
}

impl Phase {
    /// Nothing moves any more.
    #[must_use]
    pub fn is_over(self) -> bool {
        matches!(self, Self::Promoted | Self::Retired | Self::RolledBack)
    }

    /// Canary may have traffic and is judged.
    #[must_use]
    pub fn is_live(self) -> bool {
        matches!(self, Self::Gated | Self::Shifting | Self::Baking | Self::Promoting)
    }
}

/// What is known of one region.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RegionState {
    /// Wanted canary weight.
    pub desired: Weight,
    /// Share of the requests that the canary is to get copies of.
    #[serde(default, skip_serializing_if = "Weight::is_unset")]
    pub mirror: Weight,
    /// Read back on every instance, at this generation.
    pub confirmed: Option<Generation>,
    /// Last canary weight read; none since the controller started, or while an effect is unknown.
    pub observed: Option<Weight>,
    /// Canary weight that was read last, whatever happened since.
    pub last_read: Weight,
    /// Share that is copied to the canary, by the same reading.
    #[serde(default, skip_serializing_if = "Weight::is_unset")]
    pub mirrored: Weight,
    /// The generation that its targets stored, when it was last confirmed.
    pub stored: Option<Generation>,
    /// The balancer's mark of its own start, when it was last confirmed.
    pub restart_marker: Option<String>,
    /// A change that nobody here made.
    pub drift: Option<Drift>,
    /// How often somebody else changed it in this rollout.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub edits: u32,
    /// Backends by arm, where they can be seen.
    pub backends: Option<ArmBackends>,
    /// Hooks that were begun.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub hooks: BTreeMap<Hook, HookState>,
    /// Its probes fail.
    pub unhealthy: bool,
    /// Why it is not settled, for people.
    pub note: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl RegionState {
    /// What is to reach the canary.
    #[must_use]
    pub fn wanted(&self) -> Reach {
        Reach { weight: self.desired, mirror: self.mirror }
    }

    /// What reaches it; none where it is not known now.
    #[must_use]
    pub fn seen(&self) -> Option<Reach> {
        self.observed.map(|weight| Reach { weight, mirror: self.mirrored })
    }
}

/// Nothing is raised until `resume`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pause {
    /// Who, or `tidegate`.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Since when.
    pub at: Timestamp,
    /// The one change of weights that a person let through since.
    pub except: Option<Generation>,
}

impl Rollout {
    /// The state right after `started`.
    #[must_use]
    pub fn start(id: RolloutId, started: &Started, at: Timestamp) -> Self {
        let regions =
            started.plan.regions.keys().map(|name| (name.clone(), RegionState::default()));
        Self {
            id,
            version: started.version.clone(),
            stable_version: started.stable_version.clone(),
            slots: started.slots.clone(),
            phase: Phase::Preparing,
            phase_since: at,
            stage: 0,
            step: 0,
            generation: started.generation,
            found: started.generation,
            regions: regions.collect(),
            clocks: Clocks::default(),
            paused: None,
            quarantined: None,
            undecided: false,
            overdue: false,
            data_overdue: false,
            judgement: None,
            owed: BTreeSet::new(),
            not_proven: BTreeSet::new(),
            cause: None,
            started_by: started.by.name.clone(),
            votes: Vec::new(),
            rollback_asked: None,
            started_at: at,
            ended_at: None,
            plan: started.plan.clone(),
        }
    }

    /// Folds a sequence of facts; `None` unless the first one is `Started`.
    pub fn fold<'a>(facts: impl IntoIterator<Item = &'a Fact>) -> Option<Self> {
        let mut rollout: Option<Self> = None;
        for fact in facts {
            rollout = match (rollout, &fact.event, &fact.rollout) {
                (None, Event::Started(started), Some(id)) => {
                    Some(Self::start(id.clone(), started, fact.at))
                }
                (Some(mut rollout), event, _) => {
                    rollout.apply(event, fact.at);
                    Some(rollout)
                }
                (None, ..) => None,
            };
        }
        rollout
    }

    /// The current stage.
    #[must_use]
    pub fn stage(&self) -> &Stage {
        // A plan has at least one stage, and `stage` only ever names one of them.
        &self.plan.stages[self.stage.min(self.plan.stages.len() - 1)]
    }

    /// The current step.
    #[must_use]
    pub fn step(&self) -> &Step {
        let steps = &self.stage().steps;
        &steps[self.step.min(steps.len() - 1)]
    }

    /// The step after the current one, as indices of stage and step.
    #[must_use]
    pub fn next_step(&self) -> Option<(usize, usize)> {
        if self.step + 1 < self.stage().steps.len() {
            Some((self.stage, self.step + 1))
        } else if self.stage + 1 < self.plan.stages.len() {
            Some((self.stage + 1, 0))
        } else {
            None
        }
    }

    /// The current step is the last of its stage.
    #[must_use]
    pub fn at_last_step(&self) -> bool {
        self.step + 1 >= self.stage().steps.len()
    }

    /// Every region was read back at the newest generation.
    #[must_use]
    pub fn all_confirmed(&self) -> bool {
        self.regions.values().all(|region| region.confirmed == Some(self.generation))
    }

    /// Every criterion so far was proven, none let through. A plan that asks for no proof gives none.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        let asks = self.plan.stages.iter().any(|stage| !stage.criteria.is_empty());
        asks && self.not_proven.is_empty()
    }

    /// Nothing may be raised now: paused, and not by a person's step forward since.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.paused.as_ref().is_some_and(|pause| pause.except != Some(self.generation))
    }

    /// Every region's probes succeed, and its load balancers were read when they were last asked.
    #[must_use]
    pub fn regions_well(&self) -> bool {
        self.regions.values().all(|region| !region.unhealthy && region.observed.is_some())
    }

    /// How often the rollout is looked at: the shortest poll interval of its regions.
    #[must_use]
    pub fn poll(&self) -> Millis {
        self.plan.regions.values().map(|region| region.poll).min().unwrap_or(Millis::from_secs(15))
    }

    /// Takes one fact in. Total: no fact is refused here, and nothing is decided.
    pub fn apply(&mut self, event: &Event, at: Timestamp) {
        match event {
            Event::Adopted(_)
            | Event::Started(_)
            | Event::Prepared
            | Event::GateOpened { .. }
            | Event::Queued(_)
            | Event::Unqueued { .. }
            | Event::GlassBroken { .. }
            | Event::Reviewed { .. }
            | Event::Frozen { .. }
            | Event::Thawed { .. }
            | Event::Looked(_) => {}
            Event::RollbackAsked { .. }
            | Event::Approved { .. }
            | Event::ApprovalsDropped { .. }
            | Event::ApprovalTimedOut { .. }
            | Event::RollbackWithdrawn { .. }
            | Event::RollbackOverdue { .. } => approval::apply(self, event, at),
            Event::GateReached { stage, .. } => self.apply_gate(*stage, at),
            Event::StepEntered { stage, step, generation, weights, mirrors, .. } => {
                (self.stage, self.step) = (*stage, *step);
                self.apply_step(*generation, weights, mirrors, at);
            }
            Event::RegionRead { .. }
            | Event::BackendsSeen { .. }
            | Event::EffectUnknown { .. }
            | Event::DriftFound { .. }
            | Event::HookStarted { .. }
            | Event::HookEnded { .. }
            | Event::RegionHealth { .. } => self.apply_region(event, at),
            Event::ShiftOverdue { .. } => self.overdue = true,
            Event::Polled { clocks } => {
                self.data_overdue &= clocks.source_dark.max(clocks.canary_dark) > Millis::ZERO;
                self.clocks = clocks.clone();
            }
            Event::Judged(judgement) | Event::StagePassed { judgement, .. } => {
                self.judgement = Some((**judgement).clone());
            }
            Event::StageUndecided { judgement, .. } => {
                self.undecided = true;
                self.judgement = Some((**judgement).clone());
            }
            Event::StageNotProven { owed, skipped, .. } => self.apply_not_proven(owed, skipped),
            Event::DebtPaid { criteria } => {
                self.owed.retain(|owed| !criteria.contains(owed));
                self.not_proven.retain(|missing| !criteria.contains(missing));
            }
            Event::DataOverdue { .. } => self.data_overdue = true,
            Event::Paused { by, reason } => self.apply_paused(&by.name, reason, at),
            Event::Resumed { generation, .. } => self.apply_resumed(*generation, at),
            Event::RollbackStarted { cause, generation, judgement } => {
                if let Some(judgement) = judgement {
                    self.judgement = Some((**judgement).clone());
                }
                self.apply_rollback(cause, *generation, at);
            }
            Event::RolledBack => self.end(Phase::RolledBack, at),
            Event::PromotionStarted { generation } => {
                self.want(*generation, |_| Weight::FULL.into());
                self.let_through(*generation);
                self.enter(Phase::Promoting, at);
            }
            Event::Promoted { .. } => self.end(Phase::Promoted, at),
            Event::Retired => self.end(Phase::Retired, at),
            Event::Recovered => self.apply_recovered(),
            Event::Quarantined { .. } => self.apply_quarantined(at),
            Event::Released { .. } => self.quarantined = None,
        }
    }

    fn apply_not_proven(&mut self, owed: &[CriterionId], skipped: &[CriterionId]) {
        self.owed.retain(|criterion| !skipped.contains(criterion));
        self.owed.extend(owed.iter().cloned());
        self.not_proven.extend(skipped.iter().chain(owed).cloned());
    }

    fn apply_paused(&mut self, by: &str, reason: &str, at: Timestamp) {
        let (by, reason) = (by.to_owned(), reason.to_owned());
        self.paused = Some(Pause { by, reason, at, except: None });
    }

    fn apply_rollback(&mut self, cause: &Cause, generation: Generation, at: Timestamp) {
        self.cause = Some(cause.clone());
        self.paused = None;
        self.want(generation, |_| Reach::NONE);
        self.enter(Phase::RollingBack, at);
    }

    fn apply_gate(&mut self, stage: usize, at: Timestamp) {
        (self.stage, self.step) = (stage, 0);
        self.votes.clear();
        self.enter(Phase::Gated, at);
    }

    fn apply_step(
        &mut self,
        generation: Generation,
        weights: &BTreeMap<RegionName, Weight>,
        mirrors: &BTreeMap<RegionName, Weight>,
        at: Timestamp,
    ) {
        self.undecided = false;
        self.clocks = Clocks { polled_at: self.clocks.polled_at, ..Clocks::default() };
        let of = |shares: &BTreeMap<RegionName, Weight>, name: &RegionName| {
            shares.get(name).copied().unwrap_or_default()
        };
        self.want(generation, |name| Reach {
            weight: of(weights, name),
            mirror: of(mirrors, name),
        });
        self.let_through(generation);
        self.enter(Phase::Shifting, at);
    }

    /// Nothing is known of the load balancers until they are read.
    fn apply_recovered(&mut self) {
        self.clocks.polled_at = None;
        for region in self.regions.values_mut() {
            region.observed = None;
            let under_way = |stands: &&mut HookState| matches!(stands.standing, Standing::Started);
            for stands in region.hooks.values_mut().filter(under_way) {
                stands.standing = Standing::Unknown("the controller ended meanwhile".to_owned());
            }
        }
    }

    fn apply_quarantined(&mut self, at: Timestamp) {
        self.apply_recovered();
        self.quarantined = Some(at);
    }

    fn apply_region(&mut self, event: &Event, at: Timestamp) {
        let (Event::RegionRead { region, .. }
        | Event::BackendsSeen { region, .. }
        | Event::EffectUnknown { region, .. }
        | Event::DriftFound { region, .. }
        | Event::HookStarted { region, .. }
        | Event::HookEnded { region, .. }
        | Event::RegionHealth { region, .. }) = event
        else {
            return;
        };
        let Some(state) = self.regions.get_mut(region) else { return };
        match event {
            Event::RegionRead {
                weight, mirror, confirmed, stored, restart_marker, note, ..
            } => {
                (state.observed, state.mirrored) = (Some(*weight), *mirror);
                state.last_read = *weight;
                state.confirmed = *confirmed;
                state.note.clone_from(note);
                if confirmed.is_some() {
                    state.stored = *stored;
                    state.restart_marker.clone_from(restart_marker);
                    state.drift = None;
                }
            }
            Event::BackendsSeen { backends, .. } => state.backends = Some(*backends),
            Event::EffectUnknown { what, .. } => {
                state.observed = None;
                state.note = Some(what.clone());
            }
            Event::DriftFound { observed, mirror, kind, newer, .. } => {
                self.found = newer.map_or(self.found, |newer| newer.max(self.found));
                (state.observed, state.mirrored) = (Some(*observed), *mirror);
                state.last_read = *observed;
                state.confirmed = None;
                state.note = None;
                state.drift = Some(*kind);
                state.edits += u32::from(*kind != Drift::Restart);
                self.clocks.bake = Millis::ZERO;
            }
            Event::RegionHealth { healthy, .. } => state.unhealthy = !healthy,
            Event::HookStarted { hook, generation, .. } => {
                let before = state.hooks.get(hook).filter(|it| it.generation == *generation);
                let attempts = before.map_or(0, |before| before.attempts) + 1;
                let (generation, standing) = (*generation, Standing::Started);
                state.hooks.insert(*hook, HookState { generation, attempts, standing });
            }
            Event::HookEnded { hook, standing, .. } => {
                if let Some(stands) = state.hooks.get_mut(hook) {
                    stands.standing = standing.clone();
                }
            }
            _ => {}
        }
        self.enter_by_confirmation(at);
    }

    /// Shifting ends when every region is confirmed, and begins again when one no longer is.
    fn enter_by_confirmation(&mut self, at: Timestamp) {
        let confirmed = self.all_confirmed();
        match self.phase {
            Phase::Shifting if confirmed => {
                // The bake counts from the first look after the confirmation.
                self.clocks.polled_at = None;
                self.enter(Phase::Baking, at);
            }
            Phase::Baking if !confirmed => self.enter(Phase::Shifting, at),
            _ => {}
        }
    }

    fn apply_resumed(&mut self, generation: Generation, at: Timestamp) {
        self.paused = None;
        self.generation = generation;
        for region in self.regions.values_mut() {
            region.confirmed = None;
            region.observed = None;
            region.drift = None;
            // A person saw it: what failed is tried again, under a key of its own.
            region
                .hooks
                .retain(|_, stands| matches!(stands.standing, Standing::Done | Standing::Started));
        }
        if self.phase == Phase::Baking {
            self.enter(Phase::Shifting, at);
        }
    }

    fn want(&mut self, generation: Generation, reach: impl Fn(&RegionName) -> Reach) {
        self.generation = generation;
        for (name, region) in &mut self.regions {
            Reach { weight: region.desired, mirror: region.mirror } = reach(name);
            region.confirmed = None;
            region.drift = None;
        }
    }

    /// A step forward under a pause is a person's: that one is let through, and nothing after it.
    fn let_through(&mut self, generation: Generation) {
        if let Some(pause) = &mut self.paused {
            pause.except = Some(generation);
        }
    }

    fn enter(&mut self, phase: Phase, at: Timestamp) {
        self.phase = phase;
        self.phase_since = at;
        self.overdue = false;
    }

    fn end(&mut self, phase: Phase, at: Timestamp) {
        self.enter(phase, at);
        self.paused = None;
        self.ended_at = self.ended_at.or(Some(at));
    }
}
