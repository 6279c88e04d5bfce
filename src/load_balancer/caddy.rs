//! Caddy by its admin API: the weights of the two upstreams of one `reverse_proxy` handler.
//!
//! ```text
//! read: GET   /id/HANDLER, and /metrics for the process and the upstreams' health
//! set:  PATCH /id/HANDLER/load_balancing/selection_policy, If-Match what was read
//! ```
//!
//! The generation stands in the selection policy's `@id`, which Caddy keeps in its configuration and nothing else looks
//! at: weights and generation change in one write, and the write is refused when the handler has changed since it was
//! read. Weights are in the order of the handler's upstreams, and as small as their share allows, since Caddy serves an
//! upstream as many times in a row as its weight says.

use std::time::Duration;

use async_trait::async_trait;
use reqwest::Method;
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use super::api::{Answer, Api, Call};
use super::{Pair, Unusable};
use crate::ports::{
    Backends, Capabilities, LoadBalancer, LoadBalancerError, Outcome, Reading, Split,
};
use crate::spec::fleet::Caddy;
use crate::units::{Generation, SlotName, Weight, shown};

/// The only policy that knows weights.
const POLICY: &str = "weighted_round_robin";
/// How often a write is tried that somebody else's came before.
const TRIES: usize = 3;
/// A call that fails within this time was broken off, not left without an answer.
const BREAK_MAX: Duration = Duration::from_secs(1);
const BREAK_PAUSE: Duration = Duration::from_millis(50);
/// Longest refusal that is shown, by characters.
const WORDS_MAX: usize = 200;

/// One handler.
pub struct CaddyBalancer {
    label: String,
    settings: Caddy,
    pair: Pair,
    api: Api,
}

/// The handler as Caddy has it; the rest is none of our business.
#[derive(Debug, Deserialize)]
struct Handler {
    #[serde(default)]
    handler: String,
    #[serde(default)]
    upstreams: Vec<Upstream>,
    dynamic_upstreams: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    load_balancing: LoadBalancing,
    #[serde(default)]
    health_checks: HealthChecks,
}

#[derive(Debug, Deserialize)]
struct Upstream {
    #[serde(default)]
    dial: String,
}

#[derive(Debug, Default, Deserialize)]
struct LoadBalancing {
    #[serde(default)]
    selection_policy: Policy,
}

#[derive(Debug, Default, Deserialize)]
struct Policy {
    #[serde(rename = "@id")]
    id: Option<String>,
    #[serde(default)]
    policy: String,
    #[serde(default)]
    weights: Vec<u64>,
}

#[derive(Debug, Default, Deserialize)]
struct HealthChecks {
    active: Option<serde::de::IgnoredAny>,
}

/// What was found, and how to change nothing but that.
struct Found {
    handler: Handler,
    tag: String,
    /// Where each slot's upstream stands, in the order of the slots.
    places: [usize; 2],
}

impl CaddyBalancer {
    /// For a target of the fleet; nothing is asked yet.
    pub fn new(label: String, settings: &Caddy) -> Result<Self, Unusable> {
        let pair = Pair::new(&settings.upstreams).map_err(Unusable::new)?;
        let label = format!("{label} (caddy {})", settings.id);
        let api = Api::new(label.clone(), &settings.admin, None)?;
        Ok(Self { label, settings: settings.clone(), pair, api })
    }

    /// Caddy ends idle connections to its admin API at every change: none is used twice.
    async fn call(&self, call: Call<'_>) -> Result<Answer, LoadBalancerError> {
        self.api.call(call.header("connection", "close")).await
    }

    /// Reads. A change may also break a connection that is just being opened, so a break at once is tried again.
    async fn get(&self, path: &str) -> Result<Answer, LoadBalancerError> {
        let begin = Instant::now();
        match self.call(Call::get(path)).await {
            Err(error) if error.outcome == Outcome::NotSent && begin.elapsed() < BREAK_MAX => {
                tokio::time::sleep(BREAK_PAUSE).await;
                self.call(Call::get(path)).await
            }
            answer => answer,
        }
    }

    async fn find(&self) -> Result<Found, LoadBalancerError> {
        let answer = self.get(&format!("id/{}", self.settings.id)).await?;
        let wrong = |what: String| self.api.failure(what, Outcome::Misconfigured);
        let handler: Handler = answer
            .json()
            .ok_or_else(|| wrong(format!("`{}` is not a handler", self.settings.id)))?;
        // Without it a write would be no compare-and-set: something in between has taken it away.
        let tag = answer.header("etag").map(str::to_owned);
        let tag = tag.ok_or_else(|| wrong("its answer has no ETag".to_owned()))?;
        let places = self.places(&handler).map_err(wrong)?;
        Ok(Found { handler, tag, places })
    }

    /// Where each slot's upstream stands; or why the handler's weights are not the split.
    fn places(&self, handler: &Handler) -> Result<[usize; 2], String> {
        let (id, policy) = (&self.settings.id, &handler.load_balancing.selection_policy);
        if handler.handler != "reverse_proxy" {
            return Err(format!("`{id}` is not a `reverse_proxy` handler"));
        }
        let [Some(one), Some(other)] = self
            .pair
            .names()
            .each_ref()
            .map(|name| handler.upstreams.iter().position(|upstream| upstream.dial == **name))
        else {
            let named = self.pair.names().join("` and `");
            return Err(format!("the upstreams of `{id}` are not `{named}`"));
        };
        if handler.upstreams.len() != 2 || handler.dynamic_upstreams.is_some() {
            return Err(format!("`{id}` has upstreams that are no slot's"));
        }
        if policy.policy != POLICY || policy.weights.len() != 2 {
            return Err(format!("the selection policy of `{id}` is not {POLICY} with two weights"));
        }
        match &policy.id {
            Some(own) if self.generation(policy).is_none() => {
                let own = shown(own);
                Err(format!("the selection policy of `{id}` has an `@id` of its own, `{own}`"))
            }
            _ => Ok([one, other]),
        }
    }

    fn marker(&self, generation: Generation) -> String {
        format!("tidegate:{}:{}", self.settings.id, generation.0)
    }

    fn generation(&self, policy: &Policy) -> Option<Generation> {
        let rest = policy.id.as_ref()?.strip_prefix("tidegate:")?;
        let number = rest.strip_prefix(&self.settings.id)?.strip_prefix(':')?;
        number.parse().ok().map(Generation)
    }

    /// The selection policy that has these weights, for upstreams in this order.
    fn policy(
        &self,
        places: [usize; 2],
        split: &Split,
        generation: Generation,
    ) -> Result<serde_json::Value, LoadBalancerError> {
        let weights = self.pair.weights(split);
        let weights = weights.map_err(|error| self.api.failure(error, Outcome::Misconfigured))?;
        let mut weights = weights.map(|weight| u32::from(weight.hundredths()));
        if places[0] > places[1] {
            weights.reverse();
        }
        let weights = reduced(weights);
        Ok(json!({"@id": self.marker(generation), "policy": POLICY, "weights": weights}))
    }

    /// `false`: somebody else's change came first.
    async fn write(
        &self,
        tag: String,
        policy: serde_json::Value,
    ) -> Result<bool, LoadBalancerError> {
        let path = self.policy_path();
        let call = Call::write(Method::PATCH, &path, policy);
        let answer = self.call(call.header("if-match", tag).seeing(&[412, 500])).await?;
        match answer.status.as_u16() {
            412 => Ok(false),
            500 => Err(self.not_taken(&answer)),
            _ => Ok(true),
        }
    }

    fn policy_path(&self) -> String {
        format!("id/{}/load_balancing/selection_policy", self.settings.id)
    }

    /// A configuration that cannot be loaded is a 500; Caddy has gone back to the one before by then.
    fn not_taken(&self, answer: &Answer) -> LoadBalancerError {
        #[derive(Deserialize)]
        struct Body {
            error: String,
        }
        let words = answer.json::<Body>().map(|body| body.error).unwrap_or_default();
        let cut: String = words.chars().take(WORDS_MAX).collect();
        let outcome = match words.starts_with("loading") {
            true => Outcome::Refused,
            false => Outcome::Unknown,
        };
        self.api.failure(format!("it answers 500: {}", shown(&cut)), outcome)
    }

    /// The process and the health of both upstreams, where Caddy tells them; a reading does not fail for want of them.
    async fn told(&self, handler: &Handler) -> Told {
        let Ok(answer) = self.get("metrics").await else { return Told::default() };
        let text = String::from_utf8_lossy(&answer.body);
        let started = sample(&text, "process_start_time_seconds").map(str::to_owned);
        // Without active checks Caddy calls every upstream healthy.
        let health = |place: usize| -> Option<(SlotName, Backends)> {
            handler.health_checks.active?;
            let upstream = &self.pair.names()[place];
            let name = format!("caddy_reverse_proxy_upstreams_healthy{{upstream=\"{upstream}\"}}");
            let healthy = u32::from(sample(&text, &name)? == "1");
            Some((self.pair.slots()[place].clone(), Backends { healthy, total: 1 }))
        };
        let backends = [health(0), health(1)].into_iter().collect::<Option<_>>();
        Told { started, backends }
    }

    async fn reading(&self, found: &Found) -> Reading {
        let policy = &found.handler.load_balancing.selection_policy;
        let [one, other] = found.places.map(|place| policy.weights[place]);
        let split = self.pair.split(one, one.saturating_add(other));
        let note = split.is_none().then(|| "no upstream has any weight".to_owned());
        let Told { started, backends } = self.told(&found.handler).await;
        Reading {
            settled: split.is_some(),
            split: split.unwrap_or_else(|| {
                self.pair.slots().clone().map(|slot| (slot, Weight::ZERO)).into()
            }),
            generation: self.generation(policy),
            instances: Vec::new(),
            backends,
            restart_marker: started,
            note,
        }
    }
}

/// What a Caddy tells beside its configuration.
#[derive(Default)]
struct Told {
    started: Option<String>,
    backends: Option<std::collections::BTreeMap<SlotName, Backends>>,
}

/// Divided by what divides both.
fn reduced([one, other]: [u32; 2]) -> [u32; 2] {
    let (mut divisor, mut rest) = (one, other);
    while rest != 0 {
        (divisor, rest) = (rest, divisor % rest);
    }
    [one / divisor.max(1), other / divisor.max(1)]
}

/// The value of one sample of a page of metrics, as it stands there.
fn sample<'a>(page: &'a str, name: &str) -> Option<&'a str> {
    page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).map(str::trim)
}

#[async_trait]
impl LoadBalancer for CaddyBalancer {
    fn describe(&self) -> String {
        self.label.clone()
    }

    fn capabilities(&self) -> Capabilities {
        self.settings.capabilities()
    }

    async fn read(&self) -> Result<Reading, LoadBalancerError> {
        Ok(self.reading(&self.find().await?).await)
    }

    async fn set(
        &self,
        split: &Split,
        generation: Generation,
    ) -> Result<Reading, LoadBalancerError> {
        // What is wrong with the split itself is said before anything is asked.
        self.policy([0, 1], split, generation)?;
        let mut lost = None;
        for _ in 0..TRIES {
            let found = self.find().await?;
            let there = self.generation(&found.handler.load_balancing.selection_policy);
            if let Some(newer) = there.filter(|there| *there > generation) {
                let what = format!("{generation} is older than {newer}");
                return Err(self.api.failure(what, Outcome::Superseded));
            }
            let policy = self.policy(found.places, split, generation)?;
            let begin = Instant::now();
            let written = match self.write(found.tag, policy).await {
                // Whether it came through is seen when it is read again; twice the same is no change to Caddy.
                Err(error) if error.outcome == Outcome::Unknown && begin.elapsed() < BREAK_MAX => {
                    tokio::time::sleep(BREAK_PAUSE).await;
                    lost = Some(error);
                    continue;
                }
                written => written?,
            };
            if written {
                return self.read().await.map_err(|error| {
                    let what = format!("set, not read back: {}", error.what);
                    self.api.failure(what, Outcome::Unknown)
                });
            }
        }
        let what = "somebody else goes on changing the handler";
        Err(lost.unwrap_or_else(|| self.api.failure(what, Outcome::Superseded)))
    }

    async fn by_hand(
        &self,
        split: &Split,
        generation: Generation,
    ) -> Result<Vec<String>, LoadBalancerError> {
        let places = self.find().await?.places;
        let policy = self.policy(places, split, generation)?;
        let url = format!("{}/{}", self.settings.admin.trim_end_matches('/'), self.policy_path());
        Ok(vec![format!(
            "curl -fsS -X PATCH -H 'Content-Type: application/json' -d '{policy}' '{url}'"
        )])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_as_small_as_their_share_allows() {
        for (given, wanted) in [
            ([9_500, 500], [19, 1]),
            ([10_000, 0], [1, 0]),
            ([0, 10_000], [0, 1]),
            ([5_000, 5_000], [1, 1]),
            ([9_999, 1], [9_999, 1]),
            ([0, 0], [0, 0]),
        ] {
            assert_eq!(reduced(given), wanted);
        }
    }

    #[test]
    fn a_sample_is_found_by_its_whole_name() {
        let page = "# TYPE up gauge\nup_to 3\nup{upstream=\"a:1\"} 0\nup 1.5e+09\n";
        assert_eq!(sample(page, "up"), Some("1.5e+09"));
        assert_eq!(sample(page, "up{upstream=\"a:1\"}"), Some("0"));
        assert_eq!(sample(page, "down"), None);
    }
}
