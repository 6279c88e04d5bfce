//! The people around a simulated rollout.

use super::{Crash, Simulation};

use crate::engine::decide;
use crate::engine::event::Actor;
use crate::engine::input::{Command, Input};
use crate::engine::rollout::Phase;
use crate::engine::why::why;
use crate::sim::sample;
use crate::sim::world::{approve, rollback};
use crate::spec::plan::Authority;

impl Simulation {
    pub(super) fn command(&mut self, command: Command) -> Result<decide::Answer, Crash> {
        self.coverage.see("command", &command);
        self.note(|| format!("{command:?}"));
        let asks_back = matches!(command, Command::Rollback { .. });
        let by = self.who(&command);
        let answer = self.turn(&Input::Commanded { by, command });
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

    /// Votes come from those who have not voted; everything else from one person.
    fn who(&self, command: &Command) -> Actor {
        let voted = |name: &str| {
            let asked = self.state.rollback_asked.iter().flat_map(|asked| &asked.votes);
            asked.chain(&self.state.votes).any(|vote| vote.by == name)
        };
        let free = ["ben", "eve"].into_iter().find(|name| !voted(name));
        match command {
            Command::Approve { .. } => Actor { name: free.unwrap_or("ben").to_owned(), note: None },
            _ => sample::person(),
        }
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
            .map(|(name, region)| (name.clone(), region.wanted()))
            .collect();
        let by_hand = self.state.plan.authority != Authority::Full;
        match self.state.phase {
            phase if phase != Phase::RollingBack && self.state.rollback_asked.is_some() => {
                self.command(approve())?
            }
            _ if self.state.paused.is_some() => self.command(Command::Resume)?,
            Phase::Gated if self.state.stage().approvals.is_some() && !by_hand => {
                self.command(approve())?
            }
            Phase::Gated | Phase::Baking if self.state.all_confirmed() => {
                match self.command(Command::Promote)? {
                    decide::Answer::Refused(_) => self.command(rollback())?,
                    answer => answer,
                }
            }
            phase if by_hand || phase == Phase::Preparing => {
                for (name, reach) in wanted {
                    self.world.set_by_hand(&name, reach);
                }
                decide::Answer::None
            }
            _ => decide::Answer::None,
        };
        Ok(())
    }
}
