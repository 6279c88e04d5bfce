//! A program of the operator's: one JSON document in, one out.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Mutex;

use super::super::quoted;
use super::Judge;
use super::protocol::{self, Wanted};
use crate::command;
use crate::ports::{Capabilities, LoadBalancer, LoadBalancerError, Outcome, Reading, Split};
use crate::spec::fleet::OwnProgram;
use crate::units::{Generation, SlotName};

/// Exit codes with a meaning; any other is a failure whose effect is unknown.
const SUPERSEDED: i32 = 3;
const REFUSED: i32 = 4;
const NOT_SENT: i32 = 5;

/// One program.
pub struct ProgramBalancer {
    label: String,
    settings: OwnProgram,
    judge: Judge,
    slots: [SlotName; 2],
    /// One call at a time: whoever writes such a program need not think of two.
    turn: Arc<Mutex<()>>,
}

impl ProgramBalancer {
    /// For a target of the fleet; nothing is run yet.
    #[must_use]
    pub fn new(label: String, settings: &OwnProgram, slots: &[SlotName; 2]) -> Self {
        let judge = Judge::new(settings.capabilities());
        let (settings, slots) = (settings.clone(), slots.clone());
        Self { label, settings, judge, slots, turn: Arc::default() }
    }

    fn failure(&self, what: impl ToString, outcome: Outcome) -> LoadBalancerError {
        LoadBalancerError { target: self.label.clone(), what: what.to_string(), outcome }
    }

    async fn ask(&self, wanted: Wanted<'_>, lost: Outcome) -> Result<Reading, LoadBalancerError> {
        let _turn = self.turn.lock().await;
        let mut line = serde_json::json!(wanted).to_string();
        line.push('\n');
        let said =
            command::ask(&self.settings.command, line.as_bytes(), self.settings.timeout).await;
        let said = said.map_err(|error| {
            let outcome = if error.is_wrong() { Outcome::Misconfigured } else { lost };
            self.failure(error, outcome)
        })?;
        let outcome = match said.code {
            Some(0) => {
                let reading = protocol::reading(&said.output, &self.slots);
                return reading.map_err(|what| self.failure(what, lost));
            }
            Some(SUPERSEDED) => Outcome::Superseded,
            Some(REFUSED) => Outcome::Refused,
            Some(NOT_SENT) => Outcome::NotSent,
            _ => lost,
        };
        Err(self.failure(said.detail, outcome))
    }
}

#[async_trait]
impl LoadBalancer for ProgramBalancer {
    fn describe(&self) -> String {
        let program = self.settings.command.first().map(String::as_str).unwrap_or_default();
        format!("{} (exec {program})", self.label)
    }

    fn capabilities(&self) -> Capabilities {
        self.judge.capabilities
    }

    async fn read(&self) -> Result<Reading, LoadBalancerError> {
        let wanted =
            Wanted { operation: Some("read"), weights: None, copies: None, generation: None };
        self.ask(wanted, Outcome::NotSent).await
    }

    async fn set(
        &self,
        split: &Split,
        generation: Generation,
    ) -> Result<Reading, LoadBalancerError> {
        let admitted = self.judge.admit(split, generation);
        admitted.map_err(|(what, outcome)| self.failure(what, outcome))?;
        let wanted = Wanted { operation: Some("set"), ..Wanted::set(split, generation) };
        // What it answers to a change is an echo for all we know: it is asked again.
        self.ask(wanted, Outcome::Unknown).await?;
        let reading = self.read().await.map_err(|error| {
            self.failure(format!("set, not read back: {}", error.what), Outcome::Unknown)
        })?;
        if self.judge.is_newer(reading.generation, generation) {
            return Err(self.failure("a newer generation is there", Outcome::Superseded));
        }
        Ok(reading)
    }

    async fn by_hand(
        &self,
        split: &Split,
        generation: Generation,
    ) -> Result<Vec<String>, LoadBalancerError> {
        let wanted = Wanted { operation: Some("set"), ..Wanted::set(split, generation) };
        let command: Vec<_> = self.settings.command.iter().map(|word| quoted(word)).collect();
        let wanted = quoted(&serde_json::json!(wanted).to_string());
        Ok(vec![format!("echo {wanted} | {}", command.join(" "))])
    }
}
