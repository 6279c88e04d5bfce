//! Envoys without a control plane: weights by the admin port's runtime, in the layer that only memory has.
//!
//! ```text
//! set:  POST /runtime_modify?PREFIX.BLUE=9500&PREFIX.GREEN=500&PREFIX.tidegate_generation=7    one call, atomic
//! read: GET /runtime?format=json; without our keys the weights of the configuration hold, from /config_dump
//! ```
//!
//! A restart loses all of it, which the missing generation and the new start time show.

use std::collections::BTreeMap;

use async_trait::async_trait;
use futures_util::future::join_all;
use serde::Deserialize;

use super::admin::Admin;
use super::http::{self, Get};
use super::reading::{self, Expected, Seen};
use super::{Pair, failure};
use crate::load_balancer::Unusable;
use crate::ports::{Capabilities, LoadBalancer, LoadBalancerError, Outcome, Reading, Split};
use crate::spec::fleet::EnvoyRuntime;
use crate::units::{Generation, Weight};

/// The last part of the key that holds the generation.
const GENERATION: &str = "tidegate_generation";

/// One target of the kind `envoy_runtime`.
#[derive(Debug)]
pub struct RuntimeBalancer {
    label: String,
    settings: EnvoyRuntime,
    pair: Pair,
    admin: Admin,
    envoys: Vec<Get>,
}

/// What one Envoy's runtime says of us.
#[derive(Debug, Default, PartialEq)]
struct Layer {
    weights: Option<[u64; 2]>,
    generation: Option<Generation>,
}

impl RuntimeBalancer {
    /// For a target of the fleet; nothing is asked yet.
    pub fn new(label: String, settings: &EnvoyRuntime) -> Result<Self, Unusable> {
        let envoys = settings.admin.iter().map(|address| Get::new(address));
        Ok(Self {
            label,
            pair: Pair::new(&settings.clusters).map_err(Unusable::new)?,
            admin: Admin::new(&settings.admin).map_err(Unusable::new)?.overridden(&settings.prefix),
            envoys: envoys.collect::<Result<_, _>>().map_err(Unusable::new)?,
            settings: settings.clone(),
        })
    }

    fn failure(&self, what: impl ToString, outcome: Outcome) -> LoadBalancerError {
        failure(&self.label, what, outcome)
    }

    fn key(&self, last: &str) -> String {
        format!("{}.{last}", self.settings.prefix)
    }

    fn change(&self, weights: [Weight; 2], generation: Generation) -> String {
        let [one, two] = self.pair.names();
        let [first, second] = weights.map(Weight::hundredths);
        format!(
            "/runtime_modify?{}={first}&{}={second}&{}={}",
            self.key(one),
            self.key(two),
            self.key(GENERATION),
            generation.0
        )
    }

    async fn layers(&self) -> Vec<Result<Layer, http::Error>> {
        let ask = async |envoy: &Get| {
            let body = envoy.get("/runtime?format=json").await?;
            let keys = self.pair.names().clone().map(|name| self.key(&name));
            read_layer(&body, &keys, &self.key(GENERATION)).ok_or(http::Error::Body)
        };
        join_all(self.envoys.iter().map(ask)).await
    }

    /// What each Envoy does: its runtime goes before its configuration.
    async fn look(&self, expected: Option<&Expected>) -> Result<Reading, String> {
        let (layers, mut view) =
            tokio::join!(self.layers(), self.admin.view(&self.settings.route, &self.pair));
        for (one, layer) in view.seen.iter_mut().zip(layers) {
            let layer = match layer {
                Ok(layer) => layer,
                Err(error) => {
                    *one = Seen::problem(one.name.clone(), one.connected, error.to_string());
                    continue;
                }
            };
            one.generation = layer.generation;
            if let Some([first, second]) = layer.weights {
                (one.connected, one.problem) = (true, None);
                one.splits = self.pair.split(first, first + second).into_iter().collect();
                if one.splits.is_empty() {
                    one.problem = Some("has no weights but 0".to_owned());
                }
            }
        }
        let Some(mut reading) = reading::merge(expected, &view.seen, Vec::new()) else {
            let problem = |one: &Seen| Some(format!("{} {}", one.name, one.problem.as_ref()?));
            let problems: Vec<_> = view.seen.iter().filter_map(problem).take(5).collect();
            return Err(problems.join("; "));
        };
        reading.backends = view.backends;
        reading.restart_marker = view.restart_marker;
        Ok(reading)
    }
}

/// Both keys' values, where both are there, and the generation.
fn read_layer(body: &[u8], keys: &[String; 2], generation: &str) -> Option<Layer> {
    #[derive(Deserialize)]
    struct Runtime {
        entries: BTreeMap<String, Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        final_value: String,
    }
    let runtime: Runtime = serde_json::from_slice(body).ok()?;
    let value = |key: &str| runtime.entries.get(key)?.final_value.parse::<u64>().ok();
    let [first, second] = keys;
    // Envoy's own weights are 32 bits.
    let weight = |key: &str| value(key).filter(|value| u32::try_from(*value).is_ok());
    let weights = weight(first).zip(weight(second)).map(|(first, second)| [first, second]);
    Some(Layer { weights, generation: value(generation).map(Generation) })
}

#[async_trait]
impl LoadBalancer for RuntimeBalancer {
    fn describe(&self) -> String {
        format!("{} (envoy_runtime {})", self.label, self.settings.prefix)
    }

    fn capabilities(&self) -> Capabilities {
        self.settings.capabilities()
    }

    async fn read(&self) -> Result<Reading, LoadBalancerError> {
        self.look(None).await.map_err(|what| self.failure(what, Outcome::NotSent))
    }

    async fn set(
        &self,
        split: &Split,
        generation: Generation,
    ) -> Result<Reading, LoadBalancerError> {
        let weights = self.pair.weights(split);
        let weights = weights.map_err(|error| self.failure(error, Outcome::Misconfigured))?;
        let newest = self.layers().await.into_iter().flatten().filter_map(|it| it.generation).max();
        if let Some(newest) = newest.filter(|newest| *newest > generation) {
            let what = format!("{generation} is older than {newest}");
            return Err(self.failure(what, Outcome::Superseded));
        }
        let change = self.change(weights, generation);
        let changed = join_all(self.envoys.iter().map(|envoy| envoy.post(&change))).await;
        // One that is out of reach is named by the reading; one that says no has no place for it.
        let no = |error: &http::Error| matches!(error, http::Error::Status(400..500));
        if let Some(error) = changed.into_iter().filter_map(Result::err).find(no) {
            let what = format!("{error}: is there an `admin_layer` in its runtime?");
            return Err(self.failure(what, Outcome::Refused));
        }
        let expected = Expected { split: split.clone(), generation: Some(generation) };
        let looked = self.look(Some(&expected)).await;
        looked.map_err(|what| self.failure(format!("set, not read back: {what}"), Outcome::Unknown))
    }

    async fn by_hand(
        &self,
        split: &Split,
        generation: Generation,
    ) -> Result<Vec<String>, LoadBalancerError> {
        let weights = self.pair.weights(split);
        let weights = weights.map_err(|error| self.failure(error, Outcome::Misconfigured))?;
        let change = self.change(weights, generation);
        let one = |address: &String| {
            let address = address.strip_prefix("http://").unwrap_or(address);
            format!("curl -X POST 'http://{}{change}'", address.trim_end_matches('/'))
        };
        Ok(self.settings.admin.iter().map(one).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_is_read_only_where_it_is_whole() {
        let keys = ["p.blue".to_owned(), "p.green".to_owned()];
        let read = |body: &str| read_layer(body.as_bytes(), &keys, "p.generation");
        let entry = |key: &str, value: &str| {
            format!(r#""{key}": {{"final_value": "{value}", "layer_values": []}}"#)
        };
        let whole = [entry("p.blue", "9500"), entry("p.green", "500"), entry("p.generation", "7")];
        let layer =
            read(&format!(r#"{{"layers": [], "entries": {{{}}}}}"#, whole.join(","))).unwrap();
        let wanted = Layer { weights: Some([9_500, 500]), generation: Some(Generation(7)) };
        assert_eq!(layer, wanted);
        for values in [["9500", "x"], ["9500", "-1"], ["9500", "99999999999"]] {
            let entries = [entry("p.blue", values[0]), entry("p.green", values[1])].join(",");
            let layer = read(&format!(r#"{{"entries": {{{entries}}}}}"#)).unwrap();
            assert_eq!(layer, Layer::default(), "{values:?}");
        }
        assert_eq!(read(r#"{"entries": {}}"#), Some(Layer::default()));
        assert_eq!(read("<html>"), None);
    }
}
