//! Numbers about regions that the fleet names by a question to Prometheus: asked now and then, told at each scrape.
//!
//! What cannot be known is absent, never 0.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text::encode};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tracing::warn;

use super::Current;
use crate::ports::MetricsSource;
use crate::spec::fleet::Fleet;
use crate::spec::selector::bind;
use crate::units::{RegionName, Timestamp};

/// How often they are asked.
pub const EVERY: Duration = Duration::from_secs(15);

type Number = Gauge<f64, std::sync::atomic::AtomicU64>;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfRegion {
    region: String,
}

/// The newest answers, by name and region; a number about the whole fleet has none.
#[derive(Debug, Default)]
pub struct Reported(Mutex<BTreeMap<(String, Option<RegionName>), f64>>);

impl Reported {
    /// Asks everything that the fleet names, and forgets what has no answer now.
    pub async fn ask(&self, rollouts: &Current, now: Timestamp) {
        let rollouts = std::sync::Arc::clone(&rollouts.borrow());
        let fleet = rollouts.fleet();
        let sites: Vec<_> = match fleet.reported.is_empty() {
            true => Vec::new(),
            false => rollouts.services().iter().filter_map(|name| rollouts.site(name)).collect(),
        };
        let source = |region: &RegionName| sites.iter().find_map(|site| site.regions.get(region));
        let mut answers = BTreeMap::new();
        for (name, question) in &fleet.reported {
            let regions: Vec<_> = match &question.region {
                Some(region) => vec![region],
                // A cohort is no region of which anybody asks for numbers.
                None => fleet.regions.keys().filter(|it| fleet.cohort_of(it).is_none()).collect(),
            };
            for region in regions {
                let Some(site) = source(region) else { continue };
                let asked = ask(site.metrics.as_ref(), &fleet, region, &question.promql, now).await;
                match asked {
                    Ok(Some(value)) => {
                        let of = question.region.is_none().then(|| region.clone());
                        answers.insert((name.clone(), of), value);
                    }
                    Ok(None) => {}
                    Err(what) => warn!(name, %region, what, "a number is not known"),
                }
            }
        }
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = answers;
    }

    /// As lines of OpenMetrics, under their own names.
    pub(super) fn render(&self) -> String {
        let mut registry = Registry::default();
        let mut families: BTreeMap<String, Family<OfRegion, Number>> = BTreeMap::new();
        for ((name, region), value) in &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            match region {
                Some(region) => {
                    let of = OfRegion { region: region.to_string() };
                    families.entry(name.clone()).or_default().get_or_create(&of).set(*value);
                }
                None => {
                    let number = Number::default();
                    number.set(*value);
                    registry.register(name.clone(), "As the fleet asks for it", number);
                }
            }
        }
        for (name, family) in families {
            registry.register(name, "As the fleet asks for it, by region", family);
        }
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &registry);
        text.trim_end_matches("# EOF\n").to_owned()
    }
}

/// One number; none where the source has none.
async fn ask(
    source: &dyn MetricsSource,
    fleet: &Fleet,
    region: &RegionName,
    question: &str,
    now: Timestamp,
) -> Result<Option<f64>, String> {
    let labels = fleet.regions.get(region).map(|known| known.labels.clone());
    let mut variables = labels.unwrap_or_default();
    variables.entry("region".to_owned()).or_insert_with(|| region.to_string());
    let question = bind(question, &variables).map_err(|error| error.to_string())?;
    let series = source.evaluate(&question, now).await.map_err(|error| error.to_string())?;
    match series.as_slice() {
        [] => Ok(None),
        [one] => Ok(one.samples.last().map(|(_, value)| *value).filter(|it| it.is_finite())),
        _ => Err("more than one series where one was expected".to_owned()),
    }
}
