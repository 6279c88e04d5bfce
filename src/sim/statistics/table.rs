//! The settings that are simulated, and what a good implementation reaches in each.

use rand_pcg::Pcg64Mcg;
use serde::Serialize;

use super::counts::{Course, Errors, SHARE, STABLE_RATE, Scenario};
use super::rollout::{self, Harm};
use super::rules::Rule;
use super::{Cell, cells, latency};
use crate::stats::{Limit, Plan, Traffic};

/// No increase at all.
const ANY: f64 = 0.0;
/// A tenth of a point.
const MARGIN: f64 = 0.001;

/// A row of a table.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Which table.
    pub table: &'static str,
    /// What is drawn, in words.
    pub label: String,
    /// What is drawn.
    pub setting: Setting,
    /// What has to come out.
    pub targets: Vec<Target>,
}

/// What is drawn in a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Setting {
    /// Good and failed requests.
    Counts(Scenario),
    /// Response times.
    Latency(latency::Scenario),
    /// Several regions and criteria together.
    Rollout(rollout::Scenario),
}

/// Which rules are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rules {
    /// Every one.
    All,
    /// Those that the targets are about.
    Ours,
}

/// What one rule has to reach in a row.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// Its number in the specification.
    pub id: &'static str,
    /// The rule.
    pub rule: String,
    /// What it has to reach.
    pub must: Must,
}

/// What has to be reached.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Must {
    /// A share of at most this.
    AtMost(f64),
    /// A share of at least this, in a median of about so many seconds.
    Finds(f64, Option<f64>),
    /// A share between these.
    Between(f64, f64),
    /// 80 % have spoken by about the forecast, which may be too long by this part and too short by 15 %.
    Forecast(f64, f64),
}

/// A row that was drawn.
#[derive(Debug, Clone, Serialize)]
pub struct Drawn {
    /// Which table.
    pub table: &'static str,
    /// In words.
    pub label: String,
    /// Of the first rollout.
    pub seed: u64,
    /// By rule.
    pub cells: Vec<Cell>,
    /// Whether each target was reached.
    pub targets: Vec<Reached>,
}

/// Whether a target was reached.
#[derive(Debug, Clone, Serialize)]
pub struct Reached {
    /// Its number.
    pub id: &'static str,
    /// The rule.
    pub rule: String,
    /// What has to be reached, in words.
    pub must: String,
    /// It was, within what so many rollouts can tell.
    pub reached: bool,
}

/// The rules of the tables, in the order of their columns.
fn rules() -> Vec<Rule> {
    vec![
        Rule::Threshold(0),
        Rule::Threshold(3),
        Rule::RankEachMinute,
        Rule::RankAtEnd,
        Rule::RepeatedZ,
        Rule::ShareMixture,
        Rule::WorseRaw(ANY),
        Rule::Worse(ANY),
        Rule::Worse(MARGIN),
        Rule::Within(MARGIN),
        Rule::Above(0.01),
    ]
}

fn at_most(id: &'static str, rule: impl Into<String>, share: f64) -> Target {
    Target { id, rule: rule.into(), must: Must::AtMost(share) }
}

fn finds(id: &'static str, rule: impl Into<String>, share: f64, seconds: Option<f64>) -> Target {
    Target { id, rule: rule.into(), must: Must::Finds(share, seconds) }
}

/// Every row.
#[must_use]
pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    independent(&mut rows);
    courses(&mut rows);
    clumped(&mut rows);
    late(&mut rows);
    absolute(&mut rows);
    slow(&mut rows);
    whole(&mut rows);
    planned(&mut rows);
    rows
}

fn independent(rows: &mut Vec<Row>) {
    let table = "errors one by one";
    for per_second in [10.0, 100.0, 1_000.0, 10_000.0] {
        let proof = match per_second {
            100.0 => vec![finds("T5", Rule::Within(MARGIN), 0.47, None)],
            1_000.0 => vec![finds("T5", Rule::Within(MARGIN), 1.0, Some(200.0))],
            10_000.0 => vec![finds("T5", Rule::Within(MARGIN), 1.0, Some(30.0))],
            _ => Vec::new(),
        };
        let none = [
            at_most("T1", Rule::Worse(ANY), 0.005),
            at_most("T1", Rule::Worse(MARGIN), 0.002),
            at_most("T11", Rule::Above(0.01), 0.0),
        ];
        let times = |ten: f64, hundred: f64, thousand: f64, most: f64| match per_second {
            10.0 => ten,
            100.0 => hundred,
            1_000.0 => thousand,
            _ => most,
        };
        let half = if per_second > 10.0 {
            vec![
                finds("T2", Rule::Worse(ANY), 0.99, Some(times(0.0, 280.0, 40.0, 20.0))),
                finds("T3", Rule::Worse(MARGIN), 0.98, Some(times(0.0, 560.0, 70.0, 20.0))),
            ]
        } else {
            Vec::new()
        };
        let at_limit = vec![at_most("T5", Rule::Within(MARGIN), 0.05)];
        let five =
            vec![finds("T4", Rule::Worse(MARGIN), 0.99, Some(times(160.0, 30.0, 20.0, 20.0)))];
        for (effect, targets) in [
            (0.0, [&none[..], &proof].concat()),
            (0.001, at_limit),
            (0.005, half),
            (0.01, Vec::new()),
            (0.05, five),
        ] {
            let label = format!("{per_second} rps, {}", difference(effect));
            let setting = Setting::Counts(Scenario::new(per_second, effect));
            rows.push(Row { table, label, setting, targets });
        }
    }
}

fn difference(effect: f64) -> String {
    if effect > 0.0 { format!("{:+.1} points", effect * 100.0) } else { "no difference".to_owned() }
}

fn courses(rows: &mut Vec<Row>) {
    for (course, name) in
        [(Course::Ramp, "ramp and drift"), (Course::Outage, "outage of both arms")]
    {
        for per_second in [100.0, 1_000.0, 10_000.0] {
            for effect in [0.0, 0.005] {
                let targets = if effect > 0.0 {
                    Vec::new()
                } else {
                    [Rule::Worse(ANY), Rule::Worse(MARGIN)]
                        .map(|rule| at_most("T6", rule, 0.005))
                        .to_vec()
                };
                rows.push(Row {
                    table: "drift, ramp, outage",
                    label: format!("{name}, {per_second} rps, {}", difference(effect)),
                    setting: Setting::Counts(Scenario {
                        course,
                        ..Scenario::new(per_second, effect)
                    }),
                    targets,
                });
            }
        }
    }
}

fn clumped(rows: &mut Vec<Row>) {
    let kinds = [
        (Errors::Overdispersed(0.0005), "overdispersed .0005", "T7", 0.01, 0.002),
        (Errors::Overdispersed(0.002), "overdispersed .002", "T7", 0.01, 0.002),
        (Errors::Clumps(3.0), "clumps of 3", "T7", 0.01, 0.002),
        (Errors::PodClumps(6.0), "pods, clumps of 6", "T8", 0.01, 0.003),
        (Errors::PodPareto, "pods, clumps up to 200", "T8", 0.01, 0.003),
        (Errors::PodEpisodes, "pods, bad minutes", "T8", f64::NAN, 0.007),
    ];
    for (errors, name, id, any, margin) in kinds {
        for per_second in [10.0, 100.0, 1_000.0, 10_000.0] {
            // An intra-class correlation needs more than a few requests.
            if matches!(errors, Errors::Overdispersed(_)) && per_second < 100.0 {
                continue;
            }
            let mut targets = vec![at_most(id, Rule::Worse(MARGIN), margin)];
            // Bad minutes of single pods exceed the promise without a margin: reported, not promised.
            if !any.is_nan() {
                targets.push(at_most(id, Rule::Worse(ANY), any));
            }
            rows.push(Row {
                table: "clumped errors, no difference",
                label: format!("{name}, {per_second} rps"),
                setting: Setting::Counts(Scenario { errors, ..Scenario::new(per_second, 0.0) }),
                targets,
            });
        }
    }
}

fn late(rows: &mut Vec<Row>) {
    for (per_second, seconds) in [(10.0, 220.0), (100.0, 40.0), (1_000.0, 30.0)] {
        rows.push(Row {
            table: "from minute 15 on",
            label: format!("{per_second} rps, {}", difference(0.05)),
            setting: Setting::Counts(Scenario { onset: 90, ..Scenario::new(per_second, 0.05) }),
            targets: vec![finds("T9", Rule::Worse(MARGIN), 0.99, Some(seconds))],
        });
    }
}

/// A limit of 1 % on the canary alone, whose usual rate is 0.1 %.
fn absolute(rows: &mut Vec<Row>) {
    for (per_second, two, five, twenty) in [
        (10.0, None, Some(340.0), Some(50.0)),
        (100.0, Some(350.0), Some(50.0), Some(20.0)),
        (1_000.0, Some(50.0), Some(20.0), Some(20.0)),
        (10_000.0, Some(20.0), Some(20.0), Some(20.0)),
    ] {
        let above = Rule::Above(0.01);
        let found = |seconds: Option<f64>| {
            seconds.map(|seconds| finds("T11", above, 0.99, Some(seconds))).into_iter().collect()
        };
        for (rate, targets) in [
            (0.005, vec![at_most("T11", above, 0.0)]),
            (0.02, found(two)),
            (0.05, found(five)),
            (0.2, found(twenty)),
        ] {
            rows.push(Row {
                table: "absolute limit of 1 %",
                label: format!("{} canary rps, {} % errors", per_second * 0.05, rate * 100.0),
                setting: Setting::Counts(Scenario::new(per_second, rate - 0.001)),
                targets,
            });
        }
    }
}

fn slow(rows: &mut Vec<Row>) {
    let rule = latency::Rule::Slower(0.99, 1.1);
    for per_second in [10.0, 100.0, 1_000.0, 10_000.0] {
        let found = |times: [f64; 3]| match per_second {
            100.0 => vec![finds("T10", rule, 0.95, Some(times[0]))],
            1_000.0 => vec![finds("T10", rule, 0.95, Some(times[1]))],
            10_000.0 => vec![finds("T10", rule, 0.95, Some(times[2]))],
            _ => Vec::new(),
        };
        for (factor, tail, name, targets) in [
            (1.0, 0.0, "no difference", vec![at_most("T10", rule, 0.0)]),
            (1.1, 0.0, "+10 %", vec![at_most("T10", rule, 0.01)]),
            (1.25, 0.0, "+25 %", found([720.0, 80.0, 20.0])),
            (1.5, 0.0, "+50 %", found([100.0, 20.0, 20.0])),
            (1.0, 0.02, "2 % five times slower", Vec::new()),
        ] {
            rows.push(Row {
                table: "response times",
                label: format!("{per_second} rps, {name}"),
                setting: Setting::Latency(latency::Scenario { per_second, factor, tail }),
                targets,
            });
        }
    }
}

fn whole(rows: &mut Vec<Row>) {
    let everywhere = |harm: Harm| [harm; 3];
    let smallest = |harm: Harm| [Harm::NONE, Harm::NONE, harm];
    let at_limits = Harm { errors: 0.001, slow_99: 1.421, slow_50: 1.108 };
    let slower = Harm { slow_99: 2.08, slow_50: 1.245, ..Harm::NONE };
    for (per_second, seconds) in [(100.0, 970.0), (1_000.0, 250.0), (10_000.0, 30.0)] {
        let back = |share: f64| vec![at_most("T12", rollout::BACK, share)];
        let no_proof = at_most("T12", rollout::PROVEN, 0.05);
        for (name, harm, onset, targets) in [
            ("fine", everywhere(Harm::NONE), 0, back(0.01)),
            ("every criterion at its limit", everywhere(at_limits), 0, back(0.01)),
            ("errors at their limit", everywhere(Harm::errors(0.001)), 0, vec![no_proof]),
            ("smallest region +1 point", smallest(Harm::errors(0.01)), 0, Vec::new()),
            (
                "smallest region +5 points from minute 12",
                smallest(Harm::errors(0.05)),
                72,
                Vec::new(),
            ),
            (
                "+0.3 points everywhere",
                everywhere(Harm::errors(0.003)),
                0,
                vec![finds("T12", rollout::BACK, 0.99, Some(seconds))],
            ),
            ("25 % slower everywhere", everywhere(slower), 0, Vec::new()),
        ] {
            rows.push(Row {
                table: "three regions, four criteria, three stages",
                label: format!("{per_second} rps, {name}"),
                setting: Setting::Rollout(rollout::Scenario { per_second, harm, onset }),
                targets,
            });
        }
    }
}

/// What the planner foretells, held against what happens.
fn planned(rows: &mut Vec<Row>) {
    let plan = |per_second: f64, margin: f64| {
        Plan::new(Traffic::shared(per_second, SHARE), STABLE_RATE, Limit::difference(margin))
    };
    let mut push = |what: &str, per_second: f64, effect: f64, rule: Rule, must: Must| {
        let scenario = Scenario { clumpiness: Some(1.0), ..Scenario::new(per_second, effect) };
        rows.push(Row {
            table: "what the planner foretells",
            label: format!("{what}, {per_second} rps, {:+.3} points", effect * 100.0),
            setting: Setting::Counts(scenario),
            targets: vec![Target { id: "T13", rule: rule.into(), must }],
        });
    };
    let harm = [
        (10.0, MARGIN, 0.05),
        (100.0, ANY, 0.005),
        (1_000.0, MARGIN, 0.005),
        (1_000.0, ANY, 0.001),
    ];
    for (per_second, margin, effect) in harm {
        if let Some(forecast) = plan(per_second, margin).time_to_bad(STABLE_RATE + effect) {
            let must = Must::Forecast(forecast.seconds, 0.15);
            push("time to find", per_second, effect, Rule::Worse(margin), must);
        }
    }
    for per_second in [1_000.0, 10_000.0] {
        if let Some(forecast) = plan(per_second, MARGIN).time_to_ok(STABLE_RATE) {
            let must = Must::Forecast(forecast.seconds, 0.45);
            push("time to prove", per_second, 0.0, Rule::Within(MARGIN), must);
        }
    }
    for per_second in [100.0, 1_000.0, 10_000.0] {
        for margin in [ANY, MARGIN] {
            if let Some(rate) = plan(per_second, margin).smallest_detectable(1_800.0) {
                let must = Must::Between(0.75, 0.85);
                push("smallest harm", per_second, rate - STABLE_RATE, Rule::Worse(margin), must);
            }
        }
    }
}

impl Row {
    /// Draws it. `rollouts` of it, from `seed` on.
    #[must_use]
    pub fn draw(
        &self,
        rules: Rules,
        rollouts: usize,
        seed: u64,
        done: &(dyn Fn() + Sync),
    ) -> Drawn {
        let is_asked = |is_ours: bool| is_ours || rules == Rules::All;
        let cells = match &self.setting {
            Setting::Counts(scenario) => {
                let mut asked = self::rules();
                asked.retain(|rule| is_asked(rule.is_ours()));
                let names: Vec<String> = asked.iter().map(|rule| (*rule).into()).collect();
                let spoke = |random: &mut Pcg64Mcg| {
                    let drawn = scenario.draw(random);
                    asked.iter().map(|rule| rule.first(&drawn, scenario.onset)).collect()
                };
                cells(&names, &spoke, scenario.onset, rollouts, seed, done)
            }
            Setting::Latency(scenario) => {
                let mut asked = latency::RULES.to_vec();
                asked.retain(|rule| is_asked(rule.is_ours()));
                let names: Vec<String> = asked.iter().map(|rule| (*rule).into()).collect();
                let spoke = |random: &mut Pcg64Mcg| {
                    let drawn = scenario.draw(random);
                    asked.iter().map(|rule| rule.first(&drawn)).collect()
                };
                cells(&names, &spoke, 0, rollouts, seed, done)
            }
            Setting::Rollout(scenario) => {
                let names = rollout::COLUMNS.map(str::to_owned);
                let spoke = |random: &mut Pcg64Mcg| scenario.first(random);
                cells(&names, &spoke, scenario.onset, rollouts, seed, done)
            }
        };
        let reached = |target: &Target| {
            let cell = cells.iter().find(|cell| cell.rule == target.rule);
            Reached {
                id: target.id,
                rule: target.rule.clone(),
                must: target.must.text(),
                reached: cell.is_some_and(|cell| target.must.is_reached(cell)),
            }
        };
        let targets = self.targets.iter().map(reached).collect();
        Drawn { table: self.table, label: self.label.clone(), seed, cells, targets }
    }
}

impl Must {
    /// Within four standard errors of so many rollouts; medians within 15 % or a poll.
    #[must_use]
    pub fn is_reached(self, cell: &Cell) -> bool {
        let count = cell.rollouts as f64;
        // Room for one in any number of rollouts, where the share is all but nothing.
        let room = |share: f64| 4.0 * (share * (1.0 - share) / count).sqrt() + 1.5 / count;
        match self {
            Self::AtMost(share) => cell.share <= share + room(share),
            Self::Between(low, high) => (low - room(low)..=high + room(high)).contains(&cell.share),
            Self::Forecast(seconds, long) => cell.seconds_80.is_some_and(|took| {
                // The 80th of a hundred is itself known to a few parts in a hundred only.
                let chance = 1.0 / count.sqrt();
                let poll = super::counts::POLL_SECONDS;
                let (soonest, latest) = (took * (0.85 - chance), took * (1.0 + long + chance));
                (soonest.min(took - poll)..=latest.max(took + poll)).contains(&seconds)
            }),
            Self::Finds(share, seconds) => {
                let in_time = seconds.is_none_or(|seconds| {
                    let latest = (seconds * 1.15_f64).max(seconds + 10.0);
                    cell.median_seconds.is_some_and(|found| found <= latest)
                });
                cell.share >= share - room(share) && in_time
            }
        }
    }

    fn text(self) -> String {
        let percent = |share: f64| format!("{:.1} %", share * 100.0);
        match self {
            Self::AtMost(share) => format!("at most {}", percent(share)),
            Self::Between(low, high) => format!("{} to {}", percent(low), percent(high)),
            Self::Forecast(seconds, _) => format!("80 % by {seconds:.0} s"),
            Self::Finds(share, None) => format!("at least {}", percent(share)),
            Self::Finds(share, Some(seconds)) => {
                format!("at least {} in {seconds:.0} s", percent(share))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The whole of it is `tidegate simulate --statistics --full`.
    #[test]
    fn every_target_is_reached_in_a_small_run() {
        let mut missed = Vec::new();
        for (number, row) in
            rows().into_iter().enumerate().filter(|(_, row)| !row.targets.is_empty())
        {
            let drawn = row.draw(Rules::Ours, 400, number as u64, &|| {});
            let failed = drawn.targets.iter().filter(|target| !target.reached);
            missed.extend(failed.map(|it| format!("{}: {it:?} {:?}", row.label, drawn.cells)));
        }
        assert!(missed.is_empty(), "{missed:#?}");
    }

    #[test]
    fn the_same_seed_draws_the_same_and_a_target_can_be_missed() {
        let row = rows().remove(0);
        let draw = || row.draw(Rules::All, 50, 7, &|| {}).cells;
        assert_eq!(draw(), draw());
        let cells = draw();
        let peeking = cells.iter().find(|cell| cell.rule == Rule::RepeatedZ.name()).unwrap();
        let peeking = Must::AtMost(0.005).is_reached(peeking);
        assert!(!peeking, "a repeated z-test calls back one good rollout in five");
    }
}
