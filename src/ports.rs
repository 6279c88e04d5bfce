//! The traits the driver needs, and what crosses them. Everything that touches the world stands behind one of these.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::engine::event::Fact;
pub use crate::engine::hooks::{Hook, Standing};
use crate::engine::rollout::Rollout;
use crate::engine::service::ServiceState;
pub use crate::spec::fleet::{Capabilities, Fencing, Mirroring, Steps};
use crate::units::{
    Generation, Millis, RegionName, RolloutId, Seq, ServiceName, SlotName, Timestamp, Version,
    Weight,
};

/// A split of one region's traffic over its two slots. As a map it is the weights, which sum to 100 %.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    #[serde(flatten)]
    weights: BTreeMap<SlotName, Weight>,
    /// Share of the requests that a slot gets copies of, whose answers nobody gets; only shares above 0. No slot can have
    /// the name under which they are written.
    #[serde(rename = "+copies", default, skip_serializing_if = "BTreeMap::is_empty")]
    pub copies: BTreeMap<SlotName, Weight>,
}

impl Split {
    /// The same with copies of a share of the requests for `slot`; none with a share of 0.
    #[must_use]
    pub fn with_copies(mut self, slot: SlotName, share: Weight) -> Self {
        if !share.is_zero() {
            self.copies.insert(slot, share);
        }
        self
    }
}

impl std::ops::Deref for Split {
    type Target = BTreeMap<SlotName, Weight>;

    fn deref(&self) -> &Self::Target {
        &self.weights
    }
}

impl std::ops::DerefMut for Split {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.weights
    }
}

impl FromIterator<(SlotName, Weight)> for Split {
    fn from_iter<T: IntoIterator<Item = (SlotName, Weight)>>(weights: T) -> Self {
        Self { weights: weights.into_iter().collect(), copies: BTreeMap::new() }
    }
}

impl<const N: usize> From<[(SlotName, Weight); N]> for Split {
    fn from(weights: [(SlotName, Weight); N]) -> Self {
        weights.into_iter().collect()
    }
}

/// `blue 95 % green 5 %`, and what is copied.
impl std::fmt::Display for Split {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let weights = self.weights.iter().map(|(slot, weight)| format!("{slot} {weight}"));
        let copies = self.copies.iter().map(|(slot, share)| format!("copies {slot} {share}"));
        formatter.write_str(&weights.chain(copies).collect::<Vec<_>>().join(" "))
    }
}

/// Sets and reads the weights of one service at one load balancer of one region. Knows slots, not roles or rollouts.
#[async_trait]
pub trait LoadBalancer: Send + Sync {
    /// What this is, for people: `envoy web at 127.0.0.1:9901`. Never holds a secret.
    fn describe(&self) -> String;

    /// What it can do.
    fn capabilities(&self) -> Capabilities;

    /// Reads what the data plane does now. Never an echo of what was asked.
    async fn read(&self) -> Result<Reading, LoadBalancerError>;

    /// Sets absolute weights and returns what was read back afterwards (which may not be settled yet).
    ///
    /// Repeating a call is harmless. A `generation` older than the newest seen is refused. Raises before it lowers.
    async fn set(
        &self,
        split: &Split,
        generation: Generation,
    ) -> Result<Reading, LoadBalancerError>;

    /// What there is to take over; settled only where that is certain. Changes nothing.
    ///
    /// A balancer that runs by itself is read. One that has its weights from Tidegate alone has none before the first
    /// ones are recorded: it says which ones those should be.
    async fn survey(&self) -> Result<Reading, LoadBalancerError> {
        self.read().await
    }

    /// Puts weights into force that were taken over and recorded, where nobody else does; `None` where nothing is to do.
    async fn begin(
        &self,
        _split: &Split,
        _generation: Generation,
    ) -> Result<Option<Reading>, LoadBalancerError> {
        Ok(None)
    }

    /// All that `set` does, but the write: the weights are checked and rendered, and the balancer is read. Changes nothing.
    async fn dry_set(
        &self,
        split: &Split,
        generation: Generation,
    ) -> Result<(), LoadBalancerError> {
        self.by_hand(split, generation).await?;
        self.read().await.map(drop)
    }

    /// Commands for a shell that set these weights without Tidegate; none where nothing but Tidegate can. Changes nothing.
    async fn by_hand(
        &self,
        _split: &Split,
        _generation: Generation,
    ) -> Result<Vec<String>, LoadBalancerError> {
        Ok(Vec::new())
    }
}

/// What the data plane does now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// Weights that every instance agrees on; where they differ, those with the most canary per slot are in `instances`.
    pub split: Split,
    /// Every expected instance was seen and agrees on `split`.
    pub settled: bool,
    /// The generation found in the data plane, where the adapter can store one.
    pub generation: Option<Generation>,
    /// By instance, where the adapter sees them.
    pub instances: Vec<InstanceReading>,
    /// Backends by slot, where the adapter sees them.
    pub backends: Option<BTreeMap<SlotName, Backends>>,
    /// Changes when the balancer restarts (start time, pid); `None` when unknown.
    pub restart_marker: Option<String>,
    /// Why it is not settled, for people.
    pub note: Option<String>,
}

/// One instance of the data plane.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InstanceReading {
    /// Its own name.
    pub name: String,
    /// What it does; `None` when it was not seen.
    pub split: Option<Split>,
    /// Connected now.
    pub connected: bool,
}

/// Backends of one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backends {
    /// Those that may get traffic.
    pub healthy: u32,
    /// All.
    pub total: u32,
}

/// Why a load balancer could not be set or read.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{target}: {what}")]
pub struct LoadBalancerError {
    /// Which balancer, for people.
    pub target: String,
    /// What went wrong: a lower-case fragment, no secret.
    pub what: String,
    /// What is known about the effect.
    pub outcome: Outcome,
}

/// What is known about the effect of a failed call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Nothing was sent; repeating may help.
    NotSent,
    /// It was sent and no answer came: observe before anything else.
    Unknown,
    /// The balancer refused; repeating the same does not help.
    Refused,
    /// The configuration is wrong; a person has to change it.
    Misconfigured,
    /// A newer generation has been here.
    Superseded,
}

impl Outcome {
    /// Whose matter it is, and whether trying again helps.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            Self::NotSent => "nothing was changed; it is tried again",
            Self::Unknown => "it may have happened; it is looked at first, then tried again",
            Self::Refused => "the balancer says no; the same again does not help",
            Self::Misconfigured => "a person has to change the fleet file or the balancer",
            Self::Superseded => "another controller has been here",
        }
    }
}

/// Reads raw samples. One per region.
#[async_trait]
pub trait MetricsSource: Send + Sync {
    /// What this is, for people. Never holds a secret.
    fn describe(&self) -> String;

    /// Every raw sample of every series that `selector` matches, newer than `after` and not newer than `at`.
    ///
    /// `selector` is a plain instant vector selector with all variables bound. Sources that hold only the newest value
    /// return that one. Series come in any order; samples by time.
    async fn raw(
        &self,
        selector: &str,
        after: Timestamp,
        at: Timestamp,
    ) -> Result<Vec<Series>, MetricsError>;

    /// The value of an expression at `at`; NaN values are kept. Sources that cannot evaluate say so.
    async fn evaluate(&self, expression: &str, at: Timestamp) -> Result<Vec<Series>, MetricsError>;

    /// The values of an expression at `from` and every `step` after it, up to `to`, all in whole seconds.
    ///
    /// A source without a past says so.
    async fn evaluate_range(
        &self,
        _expression: &str,
        _from: Timestamp,
        _to: Timestamp,
        _step: Millis,
    ) -> Result<Vec<Series>, MetricsError> {
        let what = "has no past to read".to_owned();
        Err(MetricsError { source_name: self.describe(), what, misconfigured: true })
    }

    /// What the counters that `selector` matches gained after `after` up to `at`, summed by the source itself over all
    /// series with the same value of label `by` (all together without it). `None`: read [`raw`](Self::raw) instead.
    async fn increase(
        &self,
        _selector: &str,
        _by: Option<&str>,
        _after: Timestamp,
        _at: Timestamp,
    ) -> Option<Result<Increase, MetricsError>> {
        None
    }
}

/// What counters gained, summed by the source.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Increase {
    /// By value of the label asked for; `""` without one. Empty: nothing had a sample at both ends.
    pub sums: BTreeMap<String, f64>,
    /// Time of the newest sample of all; `None` when nothing matches.
    pub newest: Option<Timestamp>,
}

/// One series and its raw samples.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// All labels, `__name__` included.
    pub labels: BTreeMap<String, String>,
    /// Time and value, ascending in time, with the sample's own time where the source knows it.
    pub samples: Vec<(Timestamp, f64)>,
}

/// Why there are no numbers.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{source_name}: {what}")]
pub struct MetricsError {
    /// Which source, for people.
    pub source_name: String,
    /// What went wrong: a lower-case fragment without a secret or the answer's body.
    pub what: String,
    /// The question is wrong (a person has to change it), not the source.
    pub misconfigured: bool,
}

/// Asks one HTTP or command check.
#[async_trait]
pub trait Checker: Send + Sync {
    /// Whether the named check of the fleet holds for this service, version and region, and what it said.
    async fn check(
        &self,
        name: &str,
        subject: &Subject,
        timeout: Millis,
    ) -> Result<CheckAnswer, MetricsError>;
}

/// What a check is asked about.
#[derive(Debug, Clone, PartialEq)]
pub struct Subject {
    /// The service.
    pub service: ServiceName,
    /// The canary's version.
    pub version: Version,
    /// The region.
    pub region: RegionName,
}

/// A check's answer.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckAnswer {
    /// It holds.
    pub held: bool,
    /// What it said, at most 200 characters, made safe to show.
    pub detail: String,
}

/// Runs the operator's hooks.
#[async_trait]
pub trait HookRunner: Send + Sync {
    /// Runs one to its end. `again`: it may have been done already, so that is asked first where it can be.
    async fn run(&self, hook: Hook, subject: &HookSubject, again: bool) -> Standing;
}

/// What a hook is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookSubject {
    /// The service.
    pub service: ServiceName,
    /// The region.
    pub region: RegionName,
    /// The slot it is about: the canary's.
    pub slot: SlotName,
    /// The version that is or comes there.
    pub version: Version,
    /// The same for every try of the same thing.
    pub key: String,
}

/// Tells people.
#[async_trait]
pub trait Notifier: Send + Sync {
    /// Delivers one notice, at least once; `key` is the same for the same notice.
    async fn notify(&self, notice: &Notice);

    /// Waits until all is delivered, but not longer.
    async fn drain(&self, _longest: std::time::Duration) {}
}

/// One thing people should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// Rollout and journal position: the same notice has the same key.
    pub key: String,
    /// Somebody has to act.
    pub page: bool,
    /// One line: what happened.
    pub text: String,
    /// Who is affected now, why, what Tidegate does, what one may do: a line each.
    #[serde(default)]
    pub lines: Vec<String>,
    /// Where it happened.
    #[serde(default)]
    pub regions: Vec<RegionName>,
}

impl Notice {
    /// One that is a line.
    #[must_use]
    pub fn new(key: String, page: bool, text: String) -> Self {
        Self { key, page, text, lines: Vec::new(), regions: Vec::new() }
    }
}

/// The time, and waiting for it. Never steps back.
#[async_trait]
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> Timestamp;
    /// Returns once `now()` has reached `at`.
    async fn sleep_until(&self, at: Timestamp);
}

/// Keeps facts. All facts of one service, its rollouts included, are one stream with one writer.
#[async_trait]
pub trait Journal: Send + Sync {
    /// Appends to one service's stream: all or nothing, on disk on return.
    ///
    /// `expected` is the stream's sequence as the writer knows it (0 for a new one); another one is refused as
    /// `Conflict` and nothing is written. `facts` may be empty when only the checkpoint moves. Returns the new sequence.
    async fn append(
        &self,
        service: &ServiceName,
        expected: Seq,
        facts: &[Fact],
        checkpoint: Option<&Checkpoint>,
    ) -> Result<Seq, JournalError>;

    /// A service and its stream's sequence; `None` if nothing is known of it.
    async fn service(
        &self,
        service: &ServiceName,
    ) -> Result<Option<(ServiceState, Seq)>, JournalError>;

    /// Every service known.
    async fn services(&self) -> Result<Vec<ServiceState>, JournalError>;

    /// A rollout as its facts fold, and its newest checkpoint.
    async fn rollout(
        &self,
        id: &RolloutId,
    ) -> Result<Option<(Rollout, Option<Checkpoint>)>, JournalError>;

    /// Every rollout that is not over.
    async fn open_rollouts(&self) -> Result<Vec<RolloutId>, JournalError>;

    /// Whether there is room for another rollout; those under way do not ask.
    async fn has_room(&self) -> Result<(), JournalError> {
        Ok(())
    }

    /// The facts of a service, oldest first, at most `limit` of the newest; those of one rollout if one is given.
    async fn history(
        &self,
        service: &ServiceName,
        rollout: Option<&RolloutId>,
        limit: usize,
    ) -> Result<Vec<(Seq, Fact)>, JournalError>;
}

/// What a restart continues from beside the facts: logs of wealth, last raw samples. Replaced at every poll.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The rollout it belongs to.
    pub rollout: RolloutId,
    /// Of the statistics that wrote it; another version holds and says so.
    pub statistics: u32,
    /// The judge, as its own serialisation.
    pub judge: serde_json::Value,
    /// The meters by region, as their own serialisation.
    pub meters: serde_json::Value,
}

/// Why the journal did not take or give something.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Another writer was here.
    #[error("stream of {service} stands at {actual}, not at {expected}")]
    Conflict {
        /// Which stream.
        service: ServiceName,
        /// What the writer thought.
        expected: Seq,
        /// What it is.
        actual: Seq,
    },
    /// It could not be written or read.
    #[error("{0}")]
    Failed(String),
}
