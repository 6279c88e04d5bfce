//! The people around a simulated rollout.

use super::{Crash, Simulation};
use crate::engine::decide;
use crate::engine::input::{Command, Input};
use crate::engine::rollout::Phase;
use crate::engine::why::why;
use crate::sim::sample;
use crate::sim::world::rollback;
use crate::spec::plan::Authority;

impl Simulation {
    pub(super) fn command(&mut self, command: Command) -> Result<decide::Answer, Crash> {
        self.coverage.see("command", &command);
        self.note(|| format!("{command:?}"));
        let asks_back = matches!(command, Command::Rollback { .. });
        let answer = self.turn(&Input::Commanded { by: sample::person(), command });
        let is_told = match &answer {
            Ok(answer) => *answer == decide::Answer::Accepted,
            Err(Crash) => self.options.answers_early,
        };
        self.checks.rollback_told |= asks_back && is_told;
        let answer = answer?;
        self.coverage.see("answer", &answer);
        self.note(|| format!("{answer:?}"));
        Ok(answer)
    }

    /// It waits for somebody: it has to say why, and somebody does what it waits for.
    pub(super) fn help(&mut self) -> Result<(), Crash> {
        self.coverage.see("waits", &self.state.phase);
        let reasons = why(&self.state, self.world.now());
        if reasons.is_empty() {
            let text = format!("waits in {:?} without a reason", self.state.phase);
            self.checks.violations.push(text);
        }
        for reason in &reasons {
            self.coverage.see("waits for", reason);
        }
        let wanted: Vec<_> = self
            .state
            .regions
            .iter()
            .map(|(name, region)| (name.clone(), region.desired))
            .collect();
        let by_hand = self.state.plan.authority != Authority::Full;
        match self.state.phase {
            _ if self.state.paused.is_some() => self.command(Command::Resume)?,
            Phase::Gated | Phase::Baking if self.state.all_confirmed() => {
                match self.command(Command::Promote)? {
                    decide::Answer::Refused(_) => self.command(rollback())?,
                    answer => answer,
                }
            }
            phase if by_hand || phase == Phase::Preparing => {
                for (name, weight) in wanted {
                    self.world.set_by_hand(&name, weight);
                }
                decide::Answer::None
            }
            _ => decide::Answer::None,
        };
        Ok(())
    }
}
