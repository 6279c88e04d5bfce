//! What every load-balancer adapter must do, on the real server: each line of the suite for each adapter, and the table.
//!
//! An adapter's test makes its [`World`] and hands it to [`hold`]. What a line found is kept in `target/conformance`, from
//! where `scripts/conformance` prints the table.

mod lines;

use std::fmt::Write as _;
use std::sync::Arc;

use async_trait::async_trait;
use tidegate::load_balancer::{self, Connected};
use tidegate::ports::{LoadBalancer, Reading, Split};
use tidegate::spec;
use tidegate::units::{Generation, SlotName, Weight};

use crate::parts::backend::Counts;

/// Why a line has nothing to show for an adapter.
pub type Reason = &'static str;

/// What a world lets happen to its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It ends at once and starts again, with its configuration.
    Restart,
    /// It reads its configuration again.
    Reload,
    /// It ends.
    Gone,
    /// It is there again.
    Back,
    /// It answers long after anybody waits.
    Slow,
    /// It says no to every change.
    Refusing,
    /// It says yes to every change, and does nothing.
    Lying,
    /// It behaves again.
    Honest,
    /// The canary's pool loses its only backend.
    CanarySick,
    /// The canary's pool has it again.
    CanaryWell,
}

/// A real server with two slots, `blue` and `green`, whose backends answer with the slot's name. Begins at `green` 0.
#[async_trait]
pub trait World: Send + Sync {
    /// A target of the fleet file without its name: `haproxy: {socket: ...}`. The way to the server that faults lie on.
    fn target(&self) -> String;

    /// Why a change may cost connections that are just being opened: at most 20 in 50 changes.
    fn breaks(&self) -> Option<Reason> {
        None
    }

    /// What else the fleet file needs.
    fn fleet(&self) -> String {
        String::new()
    }

    /// The servers come to us, to a port that only one controller can have.
    fn serves(&self) -> bool {
        false
    }

    /// The restart marker is of what restarts; not where the weights lie in a store that outlives all that follow it.
    fn marks_restarts(&self) -> bool {
        true
    }

    /// Requests of a load that the canary's server has had so far, whoever got the answers; where copies can be made.
    fn had(&self) -> Option<u64> {
        None
    }

    /// How an older controller can still be the last one for a moment, where the server itself does not refuse it.
    fn slips(&self) -> Option<Reason> {
        None
    }

    /// Targets that must not be taken, and a word of the answer.
    fn bad(&self) -> Vec<(String, &'static str)>;

    /// Sends requests until `more` says no, and counts who answered.
    async fn load(&self, more: Arc<dyn Fn() -> bool + Send + Sync>) -> Result<Counts, Reason>;

    /// Sets the canary's share as a person with an editor or a client of the server would.
    async fn edit(&mut self, canary_percent: u32) -> Result<(), Reason>;

    /// Lets something happen.
    async fn happen(&mut self, fault: Fault) -> Result<(), Reason>;
}

/// A line of the suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    Split,
    Ends,
    Copies,
    Switches,
    Repeatable,
    ReadBack,
    Older,
    OtherProcess,
    Restarted,
    Reloaded,
    Gone,
    Slow,
    Refusing,
    Lying,
    Edited,
    Concurrent,
    Sick,
    Coarse,
    Bad,
}

impl Line {
    const ALL: [(Self, &'static str); 19] = [
        (Self::Split, "20,000 requests follow 1, 5, 25, 50, 99 %"),
        (Self::Ends, "0 and 100 % are exact"),
        (Self::Copies, "copies of 10 %, answers from stable alone"),
        (Self::Switches, "no request lost in 50 switches"),
        (Self::Repeatable, "absolute and repeatable"),
        (Self::ReadBack, "reads what traffic shows"),
        (Self::Older, "an older generation is refused"),
        (Self::OtherProcess, "also by another process"),
        (Self::Restarted, "restarted"),
        (Self::Reloaded, "reloaded"),
        (Self::Gone, "gone and back"),
        (Self::Slow, "slow"),
        (Self::Refusing, "refusing"),
        (Self::Lying, "lying"),
        (Self::Edited, "a hand edit is seen"),
        (Self::Concurrent, "two writers at once"),
        (Self::Sick, "the canary's pool is sick"),
        (Self::Coarse, "too fine a weight is refused"),
        (Self::Bad, "bad settings are named"),
    ];
}

/// What a line found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    Pass,
    /// It holds by less than the others do.
    Weaker(Reason),
    NotApplicable(Reason),
}

/// A world, and controllers that come and go.
pub struct Subject {
    pub world: Box<dyn World>,
    pub balancer: Arc<dyn LoadBalancer>,
    /// What keeps an open port open.
    _connected: Connected,
    generation: u64,
    canary: SlotName,
    stable: SlotName,
}

impl Subject {
    /// Connects, and sends all to the stable slot.
    pub async fn new(world: Box<dyn World>) -> Self {
        let (balancer, connected) = connect(world.as_ref()).await;
        let (canary, stable) = ("green".parse().unwrap(), "blue".parse().unwrap());
        let mut own =
            Self { world, balancer, _connected: connected, generation: 0, canary, stable };
        own.begin().await;
        own
    }

    /// All to the stable slot, as after an adoption (10 s at most).
    async fn begin(&mut self) {
        let (split, generation) = (self.split(0.0), self.next());
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        loop {
            let reading = self.balancer.set(&split, generation).await;
            if reading.as_ref().is_ok_and(|reading| reading.settled && reading.split == split) {
                return;
            }
            assert!(std::time::Instant::now() < deadline, "does not begin: {reading:?}");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    pub fn split(&self, canary_percent: f64) -> Split {
        let canary = Weight::from_percent(canary_percent).unwrap();
        Split::from([(self.canary.clone(), canary), (self.stable.clone(), canary.complement())])
    }

    /// The next generation.
    pub fn next(&mut self) -> Generation {
        self.generation += 1;
        Generation(self.generation)
    }

    /// Sets the next generation; what was read back is settled and as asked.
    pub async fn set(&mut self, canary_percent: f64) -> Reading {
        let (split, generation) = (self.split(canary_percent), self.next());
        let reading = self.balancer.set(&split, generation).await.unwrap();
        assert!(reading.settled, "{canary_percent} %: {reading:?}");
        assert_eq!(reading.split, split, "{reading:?}");
        if let Some(found) = reading.generation {
            assert_eq!(found, generation, "{reading:?}");
        }
        reading
    }

    /// Waits until `read` says what `wanted` asks (30 s at most: some tell their backends' health every 10 s).
    pub async fn read_until(&self, wanted: impl Fn(&Reading) -> bool) -> Reading {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        loop {
            let reading = self.balancer.read().await;
            if let Some(reading) = reading.as_ref().ok().filter(|reading| wanted(reading)) {
                return reading.clone();
            }
            assert!(std::time::Instant::now() < deadline, "not reached: {reading:?}");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
}

/// A controller of its own for this world: another process, as far as the server can tell.
async fn connect(world: &dyn World) -> (Arc<dyn LoadBalancer>, Connected) {
    let text = fleet_text(&world.target(), &world.fleet());
    let (fleet, problems) = spec::fleet_from_text("tidegate.yaml", &text);
    let fleet = fleet.filter(|_| !problems.has_errors()).unwrap_or_else(|| panic!("{problems}"));
    let connected =
        load_balancer::connect(&fleet, None, &std::collections::BTreeMap::new()).await.unwrap();
    (Arc::clone(connected.targets.values().next().unwrap()), connected)
}

pub fn fleet_text(target: &str, more: &str) -> String {
    format!(
        "regions: {{us_east_1: {{share: 100%, prometheus: {{url: \"http://127.0.0.1:9\"}}}}}}\n\
         services:\n  web:\n    slots: [blue, green]\n    targets:\n      us_east_1:\n      - name: edge\n        {target}\n{more}"
    )
}

/// Holds an adapter to every line, and keeps what was found. `kind` is its key in the fleet file.
pub async fn hold(kind: &str, world: Box<dyn World>) {
    let mut subject = Subject::new(world).await;
    let mut table = String::new();
    for (line, title) in Line::ALL {
        let begin = std::time::Instant::now();
        let found = lines::run(line, &mut subject).await.unwrap_or_else(Found::NotApplicable);
        let seconds = begin.elapsed().as_secs_f64();
        let (word, why) = match found {
            Found::Pass => ("pass", ""),
            Found::Weaker(why) => ("weaker", why),
            Found::NotApplicable(why) => ("none", why),
        };
        writeln!(table, "{kind}\t{title}\t{word}\t{why}\t{seconds:.1}").unwrap();
    }
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("target/conformance");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(format!("{kind}.tsv")), table).unwrap();
}
