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
    for known in all {
        counted.see(&known.view);
        let rollout = &known.view.rollout;
        let service = rollout.id.service.to_string();
        let phase = phase_name(rollout.phase).to_owned();
        phases.get_or_create(&OfPhase { service: service.clone(), phase }).set(1);
        let of = OfService { service: service.clone() };
        exposure.get_or_create(&of).set(known.view.exposure);
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
