//! A region's load balancer, well or not.

use super::sample;
use crate::engine::event::ArmBackends;
use crate::engine::input::RegionReading;
use crate::units::{Generation, Millis, Reach, RegionName, Weight};

/// What a call came back with.
#[derive(Debug)]
pub(super) enum Answer {
    /// What was read.
    Read(RegionReading),
    /// It never left.
    NotSent,
    /// It left; what would have been answered, if it was only the answer that got lost.
    Unknown(Option<RegionReading>),
}

/// What goes wrong with the next write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    AnswerLost,
    AnswerLate,
    WriteLate,
    NotSent,
    Lie,
}

/// A region's load balancer.
#[derive(Debug, Clone)]
pub struct Balancer {
    name: RegionName,
    /// What the data plane does.
    pub(super) reach: Reach,
    /// The generation stored beside it, if it can store one.
    stored: Option<Generation>,
    stores: bool,
    shows_restart: bool,
    sees_backends: bool,
    restarts: u64,
    /// What it was before our last applied write, and whether somebody else had made it so.
    past: Option<(Reach, Option<Generation>, bool)>,
    pub(super) trouble: Option<Trouble>,
    pub(super) stale_read: bool,
    pub(super) lags_until: Millis,
    pub(super) dark_until: Millis,
    pub(super) canary_dead_until: Millis,
    pub(super) all_dead_until: Millis,
    late: Vec<(Millis, Reach, Generation)>,
    /// Somebody else changed it since our last applied write.
    pub(super) touched: bool,
}

impl Balancer {
    /// At rest; what it can store and show comes from the bits of `kind`.
    pub(super) fn new(name: RegionName, kind: u8) -> Self {
        Self {
            name,
            reach: Reach::NONE,
            stored: None,
            stores: kind & 1 == 0,
            shows_restart: kind & 2 == 0,
            sees_backends: kind & 4 == 0,
            restarts: 1,
            past: None,
            trouble: None,
            stale_read: false,
            lags_until: Millis::ZERO,
            dark_until: Millis::ZERO,
            canary_dead_until: Millis::ZERO,
            all_dead_until: Millis::ZERO,
            late: Vec::new(),
            touched: false,
        }
    }

    /// It keeps the generation beside the weight.
    pub(super) fn stores(&self) -> bool {
        self.stores
    }

    /// Applies the writes that were on their way until `now`.
    pub(super) fn advance(&mut self, now: Millis) {
        let (due, later) = std::mem::take(&mut self.late).into_iter().partition(|it| it.0 <= now);
        self.late = later;
        for (_, reach, generation) in Vec::from_iter::<Vec<_>>(due) {
            self.apply(reach, generation);
        }
    }

    /// Reads what it does now.
    pub(super) fn read(&mut self, asked_at: Generation, now: Millis) -> Answer {
        if now < self.dark_until {
            return Answer::NotSent;
        }
        let past = self.past.filter(|_| std::mem::take(&mut self.stale_read));
        let mut reading = self.reading(asked_at, now);
        if let Some((reach, stored, touched)) = past {
            (reading.reach, reading.generation) = (reach, stored);
            // An old copy of somebody's edit under the same generation is one, for all that can be known.
            self.touched |= touched;
        }
        Answer::Read(reading)
    }

    /// Sets it and reads it back, as far as it is well.
    pub(super) fn set(&mut self, reach: Reach, generation: Generation, now: Millis) -> Answer {
        if now < self.dark_until {
            return Answer::Unknown(None);
        }
        match self.trouble.take() {
            Some(Trouble::NotSent) => return Answer::NotSent,
            Some(Trouble::WriteLate) if self.stores => {
                self.late.push((now.plus(Millis::from_secs(45)), reach, generation));
                return Answer::Unknown(None);
            }
            Some(Trouble::Lie) => {}
            Some(Trouble::AnswerLost) => {
                self.apply(reach, generation);
                return Answer::Unknown(None);
            }
            Some(Trouble::AnswerLate) => {
                self.apply(reach, generation);
                return Answer::Unknown(Some(self.reading(generation, now)));
            }
            _ => self.apply(reach, generation),
        }
        Answer::Read(self.reading(generation, now))
    }

    /// Somebody sets the weight by hand; what is stored beside it stays.
    pub(super) fn edit(&mut self, reach: impl Into<Reach>) {
        self.touched = true;
        self.reach = reach.into();
    }

    /// Another controller sets weight and generation.
    pub(super) fn overtake(&mut self, weight: Weight, generation: Generation) {
        self.edit(weight);
        self.stored = Some(generation).filter(|_| self.stores);
    }

    /// Starts anew with nothing to the canary.
    pub(super) fn restart(&mut self) {
        self.edit(Weight::ZERO);
        self.stored = None;
        self.restarts += 1;
    }

    /// Nothing is wrong any more, and nothing is on its way.
    pub(super) fn heal(&mut self) {
        self.trouble = None;
        self.stale_read = false;
        for until in [&mut self.lags_until, &mut self.dark_until] {
            *until = Millis::ZERO;
        }
        self.canary_dead_until = Millis::ZERO;
        self.all_dead_until = Millis::ZERO;
    }

    fn apply(&mut self, reach: Reach, generation: Generation) {
        if self.stored.is_some_and(|stored| stored > generation) {
            return;
        }
        self.past = Some((self.reach, self.stored, self.touched));
        self.reach = reach;
        self.stored = Some(generation).filter(|_| self.stores);
        self.touched = false;
    }

    fn reading(&self, asked_at: Generation, now: Millis) -> RegionReading {
        let settled = now >= self.lags_until;
        RegionReading {
            region: self.name.clone(),
            asked_at,
            reach: self.reach,
            settled,
            generation: self.stored,
            restart_marker: self.shows_restart.then(|| format!("start-{}", self.restarts)),
            keeps_weights: false,
            backends: self.sees_backends.then(|| self.backends(now)),
            note: (!settled).then(|| "1 of 2 instances lags".to_owned()),
        }
    }

    fn backends(&self, now: Millis) -> ArmBackends {
        if now < self.all_dead_until {
            sample::backends(0, 0)
        } else if now < self.canary_dead_until {
            sample::backends(0, 2)
        } else {
            sample::backends(2, 2)
        }
    }
}
