//! What Prometheus is told: how every service stands, read back at each scrape. What is not known is absent, never 0.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use prometheus_client::encoding::{EncodeLabelSet, text::encode};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::driver::controller::Known;
use crate::driver::view::View;
use crate::engine::rollout::Phase;
use crate::engine::verdict::Outcome;
use crate::units::RolloutId;

type Number = Gauge<f64, std::sync::atomic::AtomicU64>;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfService {
    service: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPhase {
    service: String,
    phase: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfRegion {
    service: String,
    region: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfCause {
    service: String,
    cause: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfOutcome {
    service: String,
    outcome: String,
}

/// Series of one scrape at most; services beyond are counted, not shown.
const SERIES_MAX: usize = 2_000;
/// Series of a service, and of each of its regions, about.
const SERIES_OF: (usize, usize) = (6, 5);

/// Rollbacks that were seen since the start, by service and cause.
#[derive(Debug, Default)]
pub struct Counted(Mutex<BTreeMap<RolloutId, (String, String)>>);

impl Counted {
    fn see(&self, view: &View) {
        let Some(cause) = &view.rollout.cause else { return };
        let service = view.rollout.id.service.to_string();
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.insert(view.rollout.id.clone(), (service, cause.kind().to_owned()));
    }

    fn counts(&self) -> BTreeMap<(String, String), u64> {
        let mut counts = BTreeMap::new();
        for key in self.0.lock().unwrap_or_else(PoisonError::into_inner).values() {
            *counts.entry(key.clone()).or_default() += 1;
        }
        counts
    }
}

/// One scrape in the OpenMetrics text format.
pub fn render(all: &[Known], counted: &Counted, lag_seconds: f64) -> String {
    let mut registry = Registry::with_prefix("tidegate");
    let lag = Number::default();
    lag.set(lag_seconds);
    registry.register("loop_lag_seconds", "How late the loop was last", lag);
    let phases = Family::<OfPhase, Gauge>::default();
    let (wanted, read) =
        (Family::<OfRegion, Number>::default(), Family::<OfRegion, Number>::default());
    let drift = Family::<OfRegion, Gauge>::default();
    let blind = Family::<OfService, Number>::default();
    let exposure = Family::<OfService, Number>::default();
    let verdicts = Family::<OfOutcome, Gauge>::default();
    let (calls, took) =
        (Family::<OfRegion, Number>::default(), Family::<OfRegion, Number>::default());
    let (mut series, mut hidden) = (0, 0);
    for known in all {
        counted.see(&known.view);
        series += SERIES_OF.0 + SERIES_OF.1 * known.view.rollout.regions.len();
        if series > SERIES_MAX {
            hidden += 1;
            continue;
        }
        let rollout = &known.view.rollout;
        let service = rollout.id.service.to_string();
        let phase = phase_name(rollout.phase).to_owned();
        phases.get_or_create(&OfPhase { service: service.clone(), phase }).set(1);
        let of = OfService { service: service.clone() };
        exposure.get_or_create(&of).set(known.view.exposure);
        for (outcome, count) in outcomes(&known.view) {
            let (service, outcome) = (service.clone(), outcome.to_owned());
            verdicts.get_or_create(&OfOutcome { service, outcome }).set(count);
        }
        for (region, ended) in &known.view.calls {
            let of = OfRegion { service: service.clone(), region: region.to_string() };
            calls.get_or_create(&of).set(ended.ended as f64);
            took.get_or_create(&of).set(ended.took.as_secs_f64());
        }
        let clocks = &rollout.clocks;
        blind.get_or_create(&of).set(clocks.source_dark.max(clocks.canary_dark).as_secs_f64());
        for (region, state) in &rollout.regions {
            let of = OfRegion { service: service.clone(), region: region.to_string() };
            wanted.get_or_create(&of).set(state.desired.percent());
            if let Some(weight) = state.observed {
                read.get_or_create(&of).set(weight.percent());
            }
            drift.get_or_create(&of).set(i64::from(state.drift.is_some()));
        }
    }
    registry.register("rollout_phase", "1 for the phase of each service's newest rollout", phases);
    registry.register("canary_weight_wanted_percent", "Wanted, by region", wanted);
    registry.register("canary_weight_read_percent", "Read back, by region", read);
    registry.register("weight_drift", "1 where nobody here made the weight what it is", drift);
    registry.register("blind_seconds", "Without data of the canary, in a row", blind);
    registry.register("canary_exposure_ratio", "Share of all users at the canary", exposure);
    registry.register("verdicts", "Newest verdicts by outcome", verdicts);
    registry.register("load_balancer_calls", "Calls that ended, by the rollout under way", calls);
    registry.register("load_balancer_call_seconds", "What they took together", took);
    let beyond = Gauge::<i64>::default();
    beyond.set(hidden);
    registry.register("services_not_shown", "Services beyond the limit of series", beyond);
    let rollbacks = Family::<OfCause, Gauge>::default();
    for ((service, cause), count) in counted.counts() {
        let of = OfCause { service, cause };
        rollbacks.get_or_create(&of).set(i64::try_from(count).unwrap_or(i64::MAX));
    }
    registry.register("rollbacks", "Seen since the start, by cause", rollbacks);
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = encode(&mut text, &registry);
    text
}

fn outcomes(view: &View) -> [(&'static str, i64); 3] {
    let verdicts = view.judgement.iter().flat_map(|judgement| &judgement.verdicts);
    let mut counts = [("pass", 0), ("fail", 0), ("undecided", 0)];
    for verdict in verdicts {
        let place = match verdict.outcome {
            Outcome::Pass => 0,
            Outcome::Fail => 1,
            Outcome::Undecided(_) => 2,
        };
        counts[place].1 += 1;
    }
    counts
}

fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Preparing => "preparing",
        Phase::Gated => "gated",
        Phase::Shifting => "shifting",
        Phase::Baking => "baking",
        Phase::Promoting => "promoting",
        Phase::Promoted => "promoted",
        Phase::Retired => "retired",
        Phase::RollingBack => "rolling_back",
        Phase::RolledBack => "rolled_back",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::sim::sample;
    use crate::units::{Seq, Timestamp};

    #[test]
    fn row_42_what_users_name_is_no_label_and_series_have_a_limit() {
        let known = |number: u32| {
            let mut rollout = sample::rollout(sample::plan());
            rollout.id = format!("service-{number}-1").parse().unwrap();
            rollout.version = "v2-planted".parse().unwrap();
            let view = Arc::new(View::of(&rollout, Timestamp(1), Seq(1), None));
            Known { running: true, view }
        };
        let all: Vec<_> = (0..500).map(known).collect();
        let text = render(&all, &Counted::default(), 0.0);
        let series = text.lines().filter(|line| !line.starts_with('#')).count();
        assert!((1_000..=SERIES_MAX).contains(&series), "{series}");
        assert!(!text.contains("planted"), "{text}");
        let shown =
            text.lines().find(|line| line.starts_with("tidegate_services_not_shown ")).unwrap();
        assert!(shown.rsplit(' ').next().unwrap().parse::<u32>().unwrap() > 300, "{shown}");
    }
}
