//! The ways to and from a running rollout. They outlive a task that panics.

use std::sync::Arc;

use tokio::sync::{Mutex, broadcast, mpsc, oneshot, watch};

use super::view::View;
use crate::engine::decide::Answer;
use crate::engine::event::{Actor, Fact};
use crate::engine::input::Command;

/// Facts that a listener may be behind before it misses some.
const FACTS_BEHIND_MAX: usize = 256;

/// A command from outside, and where its answer goes.
pub struct Asked {
    /// Who.
    pub by: Actor,
    /// What.
    pub command: Command,
    /// Where the answer goes, once it is on disk.
    pub answer: oneshot::Sender<Answer>,
}

impl Asked {
    /// Says what came of it. The asker may be gone; what was asked for is done all the same.
    pub fn tell(self, answer: Answer) {
        let _ = self.answer.send(answer);
    }
}

/// The way to a running rollout.
#[derive(Clone)]
pub struct Handle {
    commands: mpsc::Sender<Asked>,
    views: watch::Receiver<Arc<View>>,
    facts: broadcast::Sender<Arc<Fact>>,
}

impl Handle {
    /// Asks for something; the answer comes once it is decided and on disk.
    pub async fn ask(&self, by: Actor, command: Command) -> Answer {
        let (answer, answered) = oneshot::channel();
        let gone = Answer::Refused("the rollout is not running any more".to_owned());
        if self.commands.send(Asked { by, command, answer }).await.is_err() {
            return gone;
        }
        answered.await.unwrap_or(gone)
    }

    /// What is going on; changes with every turn.
    #[must_use]
    pub fn views(&self) -> watch::Receiver<Arc<View>> {
        self.views.clone()
    }

    /// Facts from now on, as they are recorded. A slow reader misses the oldest ones; the journal has them all.
    #[must_use]
    pub fn facts(&self) -> broadcast::Receiver<Arc<Fact>> {
        self.facts.subscribe()
    }
}

/// The driver's ends.
#[derive(Clone)]
pub(super) struct Channels {
    /// One task at a time reads them.
    pub(super) commands: Arc<Mutex<mpsc::Receiver<Asked>>>,
    pub(super) views: watch::Sender<Arc<View>>,
    pub(super) facts: broadcast::Sender<Arc<Fact>>,
}

impl Channels {
    /// Both ends, with a first view.
    pub(super) fn new(view: View) -> (Self, Handle) {
        let (send_commands, commands) = mpsc::channel(16);
        let (views, seen) = watch::channel(Arc::new(view));
        let (facts, _) = broadcast::channel(FACTS_BEHIND_MAX);
        let handle = Handle { commands: send_commands, views: seen, facts: facts.clone() };
        (Self { commands: Arc::new(Mutex::new(commands)), views, facts }, handle)
    }
}
