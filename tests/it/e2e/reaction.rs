//! How long users suffer: from the first bad request to the last weight read back at 0.

use std::io::Write;
use std::time::{Duration, Instant};

use tidegate::engine::rollout::Phase;

use super::controller::Controller;
use super::plan::{self, POLL};
use super::world::World;

const RUNS: usize = 5;

/// One run.
#[derive(Debug)]
struct Reaction {
    total: Duration,
    /// Polls with data that the statistics took.
    polls: u64,
}

impl Reaction {
    /// What is not the statistics' own time.
    fn overhead(&self) -> Duration {
        self.total.saturating_sub(POLL.duration() * u32::try_from(self.polls).unwrap())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_percent_errors_are_gone_within_seconds() {
    let world = World::start([200, 20, 20]).await;
    world.green.fail(0.2);
    let controller = Controller::adopt(&world.address()).await;
    let mut runs = Vec::new();
    for _ in 0..RUNS {
        world.green.forget_failures();
        let mut driven = controller.start(plan::documented(), "v2").await;
        let view = driven.until_over(60).await;
        let over = Instant::now();
        controller.history(&driven.id).await;
        assert_eq!(view.rollout.phase, Phase::RolledBack);
        assert_eq!(world.weights("green").await, [0.0; 3]);
        let judgement = view.rollout.judgement.as_ref().unwrap();
        let polls = judgement.verdicts.iter().filter(|it| it.is_trigger).map(|it| it.numbers.polls);
        let total = over - world.green.first_failure().expect("a failed request");
        runs.push(Reaction { total, polls: polls.max().unwrap() });
    }
    let median = |times: &dyn Fn(&Reaction) -> Duration| {
        let mut sorted: Vec<_> = runs.iter().map(times).collect();
        sorted.sort();
        sorted[RUNS / 2]
    };
    let (total, overhead) = (median(&|run| run.total), median(&Reaction::overhead));
    // Straight to the terminal: `cargo test` keeps what a passed test prints to itself.
    let said =
        format!("reaction: median {total:.1?}, {overhead:.1?} of it overhead, of {runs:.1?}");
    writeln!(std::io::stderr(), "{said}").unwrap();
    // Two scrape intervals and a second. The median: other tests share the machine, and a scrape that came too late for
    // want of a processor is a second in which nothing could be known.
    assert!(overhead <= 2 * POLL.duration() + Duration::from_secs(1), "{runs:?}");
    assert!(total <= Duration::from_secs(15), "{runs:?}");
}
