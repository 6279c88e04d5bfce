//! One look at one region: asks the source, and turns raw samples into increments per analysis.
//!
//! Asking (`fetch`) is concurrent and holds no state; what it means (`digest`) is pure.

mod bindings;
mod digest;
mod fetch;
mod histogram;
mod memory;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::engine::poll::Measured;
use crate::metrics::increments::Window;
use crate::ports::{Checker, MetricsSource, Subject};
use crate::spec::plan::Analysis;
use crate::units::{AnalysisName, Millis, Reach, Timestamp};
use bindings::ArmBindings;
use memory::Memory;

/// How far behind `at` sums are evaluated, so that the scrape at hand is stored; raw samples need no such allowance.
const INGESTION: Millis = Millis(500);

/// What one region has to remember between looks: last raw samples, when checks were asked, when traffic was seen.
///
/// To be stored after each look; it is as large as the number of series that were seen in the last five minutes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Meter {
    analyses: BTreeMap<AnalysisName, Memory>,
    #[serde(skip)]
    bindings: ArmBindings,
}

/// What to look at, and when.
#[derive(Debug, Clone)]
pub struct LookContext<'a> {
    /// Those to be measured.
    pub analyses: Vec<&'a Analysis>,
    /// Variables of the canary's selectors, bound for this region.
    pub canary: &'a BTreeMap<String, String>,
    /// Variables of stable's selectors, bound for this region.
    pub stable: &'a BTreeMap<String, String>,
    /// What checks are asked about.
    pub subject: &'a Subject,
    /// What reaches the canary here: with nothing only stable is measured, at a weight of 100 % only the canary.
    pub reach: Reach,
    /// The aligned end of the window.
    pub at: Timestamp,
    /// `at` of the previous look; `None` sets origins only: everything is then `NotDue`, missing or an error.
    pub after: Option<Timestamp>,
    /// Older samples set no origin: when the weight was confirmed (plus whatever else must not count).
    pub not_before: Timestamp,
    /// How often the source scrapes.
    pub scrape_interval: Millis,
}

/// Where each arm's numbers come from.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    /// The canary's, and those of checks.
    pub canary: &'a dyn MetricsSource,
    /// Stable's.
    pub stable: &'a dyn MetricsSource,
}

impl LookContext<'_> {
    fn window(&self) -> Window {
        Window {
            at: self.at,
            not_before: self.not_before,
            after: self.after,
            scrape_interval: self.scrape_interval,
        }
    }
}

impl Meter {
    /// Measures every analysis of the context. A source that fails is a [`Measured::SourceError`] of that analysis.
    ///
    /// Bad events are never missing on their own: without such a series there are none. An arm without any sample for
    /// two scrape intervals and a second is dark; without a new sample before that, nothing is due. Looking twice at
    /// the same `at` counts nothing twice.
    pub async fn look(
        &mut self,
        source: &dyn MetricsSource,
        checker: &dyn Checker,
        context: &LookContext<'_>,
    ) -> BTreeMap<AnalysisName, Measured> {
        let sources = Sources { canary: source, stable: source };
        self.look_at_each(sources, checker, context).await
    }

    /// The same with a source for each arm.
    pub async fn look_at_each(
        &mut self,
        sources: Sources<'_>,
        checker: &dyn Checker,
        context: &LookContext<'_>,
    ) -> BTreeMap<AnalysisName, Measured> {
        for analysis in &context.analyses {
            self.bindings.canary.cover(analysis, context.canary);
            self.bindings.stable.cover(analysis, context.stable);
        }
        let bindings = &self.bindings;
        let due: Vec<_> = context
            .analyses
            .iter()
            .map(|analysis| {
                let memory = self.analyses.entry(analysis.name.clone()).or_default();
                fetch::fetch(
                    sources,
                    bindings,
                    checker,
                    analysis,
                    context,
                    memory.plan(analysis, context),
                )
            })
            .collect();
        let fetched = futures_util::future::join_all(due).await;
        let mut measured = BTreeMap::new();
        for (analysis, fetched) in context.analyses.iter().zip(fetched) {
            let memory = self.analyses.entry(analysis.name.clone()).or_default();
            measured.insert(analysis.name.clone(), digest::digest(memory, fetched, context));
        }
        measured
    }

    /// Starts windows anew after a confirmed change of weights: nothing from before is counted from here on.
    ///
    /// The next look sets origins. What is not a counter goes on: when checks are due, when samples were last seen.
    pub fn reset_origins(&mut self) {
        self.analyses.values_mut().for_each(Memory::reset);
    }

    /// Drops what belongs to analyses that are no longer measured.
    pub fn keep(&mut self, analyses: &[&AnalysisName]) {
        self.analyses.retain(|name, _| analyses.contains(&name));
    }
}
