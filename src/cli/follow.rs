//! Following a rollout in the foreground: live on a terminal, one line per event otherwise.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::sync::broadcast::error::RecvError;

use super::output::{self, BAD, DIM, Format, GOOD, WARN, styled};
use crate::driver::channels::Handle;
use crate::driver::view::{self, View};
use crate::engine::event::{Event, Fact};
use crate::engine::rollout::Phase;
use crate::units::{RegionName, Timestamp, Weight};

/// What a follower decides to stop at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The rollout is over.
    Over,
    /// It waits for a person, and there is none.
    Waits,
}

/// Follows until the rollout is over, or waits for a person while nobody is there to ask.
pub async fn follow(handle: &Handle, format: Format, attended: bool) -> Stop {
    let mut views = handle.views();
    let mut facts = handle.facts();
    let mut screen = Screen::new(format, &views.borrow());
    loop {
        tokio::select! {
            fact = facts.recv() => match fact {
                Ok(fact) => screen.fact(&views.borrow().clone(), &fact),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return Stop::Over,
            },
            changed = views.changed() => {
                let view = Arc::clone(&views.borrow_and_update());
                screen.view(&view);
                if changed.is_err() || view.rollout.phase.is_over() {
                    while let Ok(fact) = facts.try_recv() {
                        screen.fact(&view, &fact);
                    }
                    screen.end();
                    return Stop::Over;
                }
                if !attended && waits(&view) {
                    screen.end();
                    return Stop::Waits;
                }
            }
        }
    }
}

/// Only a person can move this.
#[must_use]
pub fn waits(view: &View) -> bool {
    view.rollout.phase != Phase::RollingBack
        && crate::driver::supervisor::waits_for_person(&view.rollout)
}

struct Screen {
    format: Format,
    started: Timestamp,
    live: Option<Live>,
    spoken: String,
}

struct Live {
    bars: MultiProgress,
    regions: BTreeMap<RegionName, ProgressBar>,
    head: ProgressBar,
    why: ProgressBar,
}

impl Screen {
    fn new(format: Format, view: &View) -> Self {
        let on_terminal = format == Format::Table && std::io::stderr().is_terminal();
        let live = on_terminal.then(|| Live::new(view));
        Self { format, started: view.rollout.started_at, live, spoken: String::new() }
    }

    fn say(&mut self, text: &str) {
        match &self.live {
            Some(live) => {
                // The terminal may be gone; then there is nobody to tell.
                let _ = live.bars.println(text);
            }
            None => output::line(text),
        }
    }

    fn fact(&mut self, view: &View, fact: &Fact) {
        if self.format != Format::Table {
            if !matches!(fact.event, Event::Polled { .. } | Event::Looked(_)) {
                output::json_line(fact);
            }
            return;
        }
        let Some(text) = view::line(&view.rollout, &fact.event) else { return };
        if text == self.spoken {
            return;
        }
        self.spoken.clone_from(&text);
        let style = match &fact.event {
            Event::RollbackStarted { .. }
            | Event::DriftFound { .. }
            | Event::EffectUnknown { .. } => BAD,
            Event::StagePassed { .. } | Event::Promoted { .. } => GOOD,
            Event::StageUndecided { .. } | Event::DataOverdue { .. } | Event::Paused { .. } => WARN,
            Event::RolledBack | Event::StepEntered { .. } => anstyle::Style::new().bold(),
            _ => anstyle::Style::new(),
        };
        let at = styled(
            DIM,
            &format!("{:>7}", format!("{:.1}s", fact.at.since(self.started).as_secs_f64())),
        );
        self.say(&format!("{at}  {}", styled(style, &text)));
    }

    fn view(&mut self, view: &View) {
        if let Some(live) = &self.live {
            live.show(view);
        }
    }

    fn end(&mut self) {
        if let Some(live) = self.live.take() {
            live.head.finish_and_clear();
            live.why.finish_and_clear();
            for bar in live.regions.values() {
                bar.finish();
            }
        }
    }
}

impl Live {
    fn new(view: &View) -> Self {
        let bars = MultiProgress::new();
        let spinner = ProgressStyle::with_template("{spinner} {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_spinner());
        let head = bars.add(ProgressBar::new_spinner()).with_style(spinner);
        head.enable_steady_tick(Duration::from_millis(120));
        let style = ProgressStyle::with_template("  {prefix:<18} [{bar:40}] {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("=> ");
        let add = |name: &RegionName| {
            let bar = bars.add(ProgressBar::new(u64::from(Weight::FULL.hundredths())));
            bar.set_style(style.clone());
            bar.set_prefix(name.to_string());
            (name.clone(), bar)
        };
        let regions = view.rollout.regions.keys().map(add).collect();
        let plain = ProgressStyle::with_template("  {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_spinner());
        let why = bars.add(ProgressBar::new_spinner()).with_style(plain);
        Self { bars, regions, head, why }
    }

    fn show(&self, view: &View) {
        let rollout = &view.rollout;
        self.head.set_message(format!(
            "{} {} -> {}  {} ({} of {})  {:?}  {:.1} % of all users",
            rollout.id,
            rollout.stable_version,
            rollout.version,
            rollout.stage().name,
            rollout.stage + 1,
            rollout.plan.stages.len(),
            rollout.phase,
            view.exposure * 100.0,
        ));
        for (name, region) in &rollout.regions {
            let Some(bar) = self.regions.get(name) else { continue };
            let read = region.observed.unwrap_or_default();
            bar.set_position(u64::from(read.hundredths()));
            let confirmed = if region.confirmed == Some(rollout.generation) {
                "read back"
            } else {
                "not confirmed"
            };
            bar.set_message(format!("{read} {confirmed}"));
        }
        self.why.set_message(view.why.first().map_or(String::new(), ToString::to_string));
    }
}
