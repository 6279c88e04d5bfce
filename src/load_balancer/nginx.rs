//! nginx by an included file that Tidegate alone writes: a `split_clients` for a variable that names an upstream.
//!
//! ```text
//! set:  write the file, test the configuration (the old file comes back when the test fails), reload
//! read: GET STATUS?key=KEY, which says the generation in force, and whose a chosen key is
//! ```
//!
//! What is read is what the workers do, not what the file says: two keys, one on each side of where the border should be,
//! prove it; any other border, a person's, is looked for by halves. The generation stands in the file, under a lock, so
//! that an older controller is refused, and in what is shown, so that a reload that did not happen is seen.

mod include;
mod keys;

use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::api::{Api, Call};
use super::owned::{self, Held};
use super::{Pair, Unusable, quoted};
use crate::command;
use crate::ports::{Capabilities, LoadBalancer, LoadBalancerError, Outcome, Reading, Split};
use crate::spec::fleet::Nginx;
use crate::units::{Generation, Millis, Weight, shown};

/// Longest time for the test and for the reload.
const COMMAND_MAX: Millis = Millis::from_secs(5);
/// Longest wait for the workers after a reload.
const CONFIRM_WAIT: Duration = Duration::from_secs(3);
/// Old workers take connections for a tenth of a second beside the new ones: so many looks in a row must agree.
const LOOKS: u32 = 4;
const LOOK_PAUSE: Duration = Duration::from_millis(50);

/// One variable.
pub struct NginxBalancer {
    label: String,
    settings: Nginx,
    /// Of the status.
    path: String,
    pair: Pair,
    api: Api,
}

/// What the workers do.
struct InForce {
    /// Hundredths of the first slot; `None` when a request goes elsewhere, named beside it.
    first: Option<u16>,
    elsewhere: Option<String>,
    generation: Option<Generation>,
}

impl NginxBalancer {
    /// For a target of the fleet; touches neither file nor network.
    pub fn new(label: String, settings: &Nginx) -> Result<Self, Unusable> {
        let pair = Pair::new(&settings.upstreams).map_err(Unusable::new)?;
        let label = format!("{label} (nginx {})", settings.include.display());
        // The API's paths are relative to a folder: here there is one page only, at its root.
        let url = crate::http::checked_url(&settings.status).map_err(Unusable::new)?;
        let root = url.join("/").map_err(Unusable::new)?;
        let api = Api::new(label.clone(), root.as_str(), None)?;
        Ok(Self { label, settings: settings.clone(), path: url.path().to_owned(), pair, api })
    }

    fn failure(&self, what: impl std::fmt::Display, outcome: Outcome) -> LoadBalancerError {
        self.api.failure(what, outcome)
    }

    fn weights(&self, split: &Split) -> Result<[Weight; 2], LoadBalancerError> {
        self.pair.weights(split).map_err(|error| self.failure(error, Outcome::Misconfigured))
    }

    fn text(&self, weights: [Weight; 2], generation: Generation) -> String {
        include::text(&self.settings, &self.path, &self.pair, weights, generation)
    }

    /// The generation in force, and the upstream of a key.
    async fn ask(&self, key: &str) -> Result<(Option<Generation>, String), LoadBalancerError> {
        // A connection that is kept would stay with an old worker.
        let path = format!("{}?key={key}", self.path.trim_start_matches('/'));
        let answer = self.api.call(Call::get(&path).header("connection", "close")).await?;
        let text = String::from_utf8_lossy(&answer.body);
        let mut words = text.split_whitespace();
        let state = words.next().filter(|word| word.starts_with("generation="));
        match (state, words.next(), words.next()) {
            (Some(state), Some(pool), None) => Ok((include::generation_of(state), pool.to_owned())),
            _ => {
                let variable = &self.settings.variable;
                let what = format!(
                    "its status does not answer with `${variable}_state ${variable}`, but `{}`",
                    shown(text.trim())
                );
                Err(self.failure(what, Outcome::Misconfigured))
            }
        }
    }

    /// Whose a hundredth of a percent is: 0 or 1, or the name of somebody else.
    async fn owner(&self, cell: u16) -> Result<Result<usize, String>, LoadBalancerError> {
        let (_, pool) = self.ask(&keys::amid(cell)).await?;
        Ok(self.pair.names().iter().position(|name| *name == pool).ok_or(pool))
    }

    /// What the workers do; `expected` is the border that is looked at first.
    async fn in_force(&self, expected: Option<u16>) -> Result<InForce, LoadBalancerError> {
        let (generation, _) = self.ask("x").await?;
        let found = match expected {
            Some(border) if self.is_border(border).await? => Ok(border),
            _ => self.search().await?,
        };
        let (first, elsewhere) = match found {
            Ok(first) => (Some(first), None),
            Err(name) => (None, Some(name)),
        };
        Ok(InForce { first, elsewhere, generation })
    }

    /// Whether just what lies below goes to the first upstream, as in every file of ours.
    async fn is_border(&self, border: u16) -> Result<bool, LoadBalancerError> {
        let below = match border.checked_sub(1) {
            Some(cell) => self.owner(cell).await? == Ok(0),
            None => true,
        };
        Ok(below && (border == keys::CELLS || self.owner(border).await? == Ok(1)))
    }

    /// Hundredths of the first slot, whichever comes first; or the name of an upstream that is no slot's.
    async fn search(&self) -> Result<Result<u16, String>, LoadBalancerError> {
        let ends = (self.owner(0).await?, self.owner(keys::CELLS - 1).await?);
        let (begin, end) = match ends {
            (Ok(begin), Ok(end)) => (begin, end),
            (Err(name), _) | (_, Err(name)) => return Ok(Err(name)),
        };
        if begin == end {
            return Ok(Ok(if begin == 0 { keys::CELLS } else { 0 }));
        }
        let (mut low, mut high) = (0, keys::CELLS - 1);
        while high - low > 1 {
            let middle = low.midpoint(high);
            match self.owner(middle).await? {
                Ok(owner) if owner == begin => low = middle,
                Ok(_) => high = middle,
                Err(name) => return Ok(Err(name)),
            }
        }
        Ok(Ok(if begin == 0 { high } else { keys::CELLS - high }))
    }

    fn reading(&self, force: InForce, written: Option<Generation>) -> Reading {
        let number = |generation: Option<Generation>| generation.map_or(0, |it| it.0);
        let note = match &force {
            InForce { elsewhere: Some(name), .. } => {
                Some(format!("some requests go to `{}`, which is no slot's", shown(name)))
            }
            InForce { generation, .. } if *generation != written => Some(format!(
                "its workers have generation {}, its file has {}",
                number(*generation),
                number(written)
            )),
            _ => None,
        };
        let first = u64::from(force.first.unwrap_or_default());
        // `whole` is not 0.
        let split = self.pair.split(first, u64::from(keys::CELLS)).unwrap_or_default();
        Reading {
            split,
            settled: note.is_none(),
            generation: force.generation,
            instances: Vec::new(),
            backends: None,
            restart_marker: None,
            note,
        }
    }

    async fn look(&self, expected: Option<u16>) -> Result<Reading, LoadBalancerError> {
        let path = self.settings.include.clone();
        let text = owned::on_disk(&self.api, move || owned::read(&path, owned::BYTES_MAX)).await?;
        let written = text.as_deref().and_then(include::generation_of);
        Ok(self.reading(self.in_force(expected).await?, written))
    }

    /// Looks until several in a row show the same that was asked for, or the time is up; returns the last one.
    async fn wait_for(
        &self,
        split: &Split,
        first: u16,
        generation: Generation,
    ) -> Result<Reading, LoadBalancerError> {
        let (deadline, mut agreed) = (Instant::now() + CONFIRM_WAIT, 0);
        loop {
            let looked = self.look(Some(first)).await;
            let shows = |it: &Reading| {
                it.settled && it.split == *split && it.generation == Some(generation)
            };
            agreed = if looked.as_ref().is_ok_and(shows) { agreed + 1 } else { 0 };
            if agreed == LOOKS {
                return looked;
            }
            // What was seen but once may be one worker's alone.
            if agreed == 0 && Instant::now() + LOOK_PAUSE >= deadline {
                return looked;
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }

    /// Runs one of the operator's programs.
    async fn run(&self, what: &str, command: &[String]) -> Result<(), LoadBalancerError> {
        let failed =
            |error: String, outcome| self.failure(format!("the {what} failed: {error}"), outcome);
        match command::run(command, &[], COMMAND_MAX).await {
            Ok(ended) if ended.success => Ok(()),
            Ok(ended) => Err(failed(ended.detail, Outcome::Refused)),
            Err(error) if error.is_wrong() => {
                Err(failed(error.to_string(), Outcome::Misconfigured))
            }
            Err(error) => Err(failed(error.to_string(), Outcome::Unknown)),
        }
    }

    /// Tests and reloads what was just written. Where that fails for sure the file is again what it was.
    async fn apply(&self, held: Held) -> Result<(), LoadBalancerError> {
        let mut done = self.run("test of the configuration", &self.settings.test).await;
        let tested = done.is_ok();
        if tested {
            done = self.run("reload", &self.settings.reload).await;
        }
        let Err(mut error) = done else { return Ok(()) };
        // A reload that has no end may have begun.
        if tested && error.outcome == Outcome::Unknown {
            return Err(error);
        }
        // Nobody is there to take a reload, most of all.
        if tested && error.outcome == Outcome::Refused {
            error.outcome = Outcome::NotSent;
        }
        if let Err(restored) = owned::on_disk(&self.api, move || held.restore()).await {
            let what = format!("{}; its file is not restored: {}", error.what, restored.what);
            return Err(self.failure(what, Outcome::Unknown));
        }
        Err(error)
    }
}

#[async_trait]
impl LoadBalancer for NginxBalancer {
    fn describe(&self) -> String {
        self.label.clone()
    }

    fn capabilities(&self) -> Capabilities {
        self.settings.capabilities()
    }

    async fn read(&self) -> Result<Reading, LoadBalancerError> {
        self.look(None).await
    }

    async fn set(
        &self,
        split: &Split,
        generation: Generation,
    ) -> Result<Reading, LoadBalancerError> {
        let weights = self.weights(split)?;
        let (path, text) = (self.settings.include.clone(), self.text(weights, generation));
        let held = owned::on_disk(&self.api, move || {
            let held = Held::take(&path, owned::BYTES_MAX, generation, include::generation_of)?;
            let same = held.is(&text);
            if !same {
                held.write(&text)?;
            }
            Ok((held, same))
        });
        let ((held, same), first) = (held.await?, weights[0].hundredths());
        // A reload ends idle connections: none for what is in force already.
        let shows = |it: Reading| it.settled && it.split == *split;
        match same && self.look(Some(first)).await.is_ok_and(shows) {
            true => drop(held),
            false => self.apply(held).await?,
        }
        let waited = self.wait_for(split, first, generation).await;
        waited.map_err(|error| {
            self.failure(format!("reloaded, not read back: {}", error.what), Outcome::Unknown)
        })
    }

    async fn by_hand(
        &self,
        split: &Split,
        generation: Generation,
    ) -> Result<Vec<String>, LoadBalancerError> {
        let text = self.text(self.weights(split)?, generation);
        let words = |command: &[String]| {
            command.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
        };
        let mut commands = Vec::from(owned::by_hand(&self.settings.include, &text));
        let (test, reload) = (words(&self.settings.test), words(&self.settings.reload));
        commands.push(format!("{test} && {reload}"));
        Ok(commands)
    }
}
