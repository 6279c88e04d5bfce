//! What the judge says of one look, always with its numbers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::poll::{DarkArm, MissingReason};
use crate::spec::plan::{CriterionId, Location};
use crate::units::{Generation, Millis, RegionName, Timestamp};

/// Everything the judge says after one poll.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// End of the judged window.
    pub at: Timestamp,
    /// The generation the judged weights belong to.
    pub generation: Generation,
    /// The current stage as a whole: `Pass` only when every criterion passes and D5 of the statistics holds.
    pub stage: Outcome,
    /// A trigger, a violated criterion or the combined evidence is proven.
    pub breach: Option<Breach>,
    /// Nothing may be raised, though nothing is proven.
    pub hold: Option<HoldEvidence>,
    /// Every criterion and trigger that applies now.
    pub verdicts: Vec<Verdict>,
    /// ln of the combined evidence for harm over all monitors; at least ln(1/alpha) is proven.
    pub log_harm: f64,
    /// Whether there was data, by region with canary weight.
    pub data: BTreeMap<RegionName, DataState>,
    /// Who is at fault, in one plain sentence, when something is wrong.
    pub attribution: Option<String>,
}

/// Pass, fail or not known yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Proven within the limit, now.
    Pass,
    /// Proven beyond it.
    Fail,
    /// Neither.
    Undecided(Undecided),
}

/// Why there is no verdict.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Undecided {
    /// More requests or more time are needed.
    NotEnoughData {
        /// Canary requests counted so far at this generation.
        requests: u64,
        /// Requests without which nothing passes.
        requests_min: u64,
        /// Estimate of the time that is still needed at this traffic, if one can be given.
        remaining: Option<Millis>,
    },
    /// The data is not there.
    NoData(MissingReason),
    /// The source does not answer.
    SourceError(String),
    /// A check did not hold at its latest run, or too rarely.
    CheckNotHeld(String),
    /// A region has evidence of harm though the whole is proven.
    RegionDiffers(RegionName),
    /// An assumption of the test is not met.
    Assumption(String),
}

/// One criterion or trigger, judged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Which.
    pub criterion: CriterionId,
    /// As the user wrote it.
    pub text: String,
    /// Where the user wrote it.
    pub source: Location,
    /// A trigger (rolls back) or a criterion (promotes).
    pub is_trigger: bool,
    /// For a criterion: within (`Pass`) or beyond (`Fail`) the limit. For a trigger: `Pass` means proven quiet.
    pub outcome: Outcome,
    /// The numbers behind it.
    pub numbers: Numbers,
    /// Recorded and shown, does not decide.
    pub dry_run: bool,
}

/// What a verdict rests on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Numbers {
    /// Method, for people: `two-arm count bet`, `latency share bet`, `check`, ...
    pub method: String,
    /// Difference, ratio or level, as the criterion states it; `None` without data.
    pub effect: Option<f64>,
    /// Interval of the effect.
    pub interval: Option<(f64, f64)>,
    /// Bad events and all events of the canary at this generation.
    pub canary: Option<(f64, f64)>,
    /// The same of stable.
    pub stable: Option<(f64, f64)>,
    /// ln of the evidence that the limit is exceeded, pooled over regions.
    pub log_bad: Option<f64>,
    /// ln of the evidence that the limit is kept, pooled over regions.
    pub log_ok: Option<f64>,
    /// ln of the evidence that the limit is exceeded, by region.
    pub regions: BTreeMap<RegionName, f64>,
    /// Clumpiness by which evidence was divided.
    pub clumpiness: Option<f64>,
    /// Which assumption is not verified (`no history`, `non-concurrent`, ...).
    pub unverified: Option<String>,
    /// Polls with data at this generation.
    pub polls: u64,
}

/// What is proven to be wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Breach {
    /// The trigger, or a violated criterion, or both; empty for combined evidence alone.
    pub criteria: Vec<CriterionId>,
    /// Regions whose own evidence is strong, for people.
    pub regions: Vec<RegionName>,
    /// One sentence with rule, file and line, and the numbers.
    pub text: String,
    /// Only holds (an unverified test of "no increase at all", or non-concurrent evidence alone).
    pub only_holds: bool,
}

/// Why nothing may be raised.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldEvidence {
    /// Evidence for harm of 20 to 1 or more, not yet proven.
    SignOfHarm {
        /// ln of the evidence.
        log_harm: f64,
    },
    /// Stable is beyond the same limit: not the version's fault.
    SharedOutage(String),
    /// Traffic does not follow the weight.
    TrafficDoesNotFollow {
        /// Where.
        region: RegionName,
        /// Observed share of canary requests, 0 to 1.
        observed: f64,
        /// Confirmed weight, 0 to 1.
        confirmed: f64,
    },
}

/// Whether there was data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DataState {
    /// Every statistical analysis had data from every arm with weight, or the source has not scraped since.
    Present,
    /// An arm is dark.
    Dark {
        /// Which.
        arm: DarkArm,
        /// Why.
        why: MissingReason,
        /// Which analysis.
        analysis: String,
    },
    /// The source does not answer.
    SourceError(String),
}
