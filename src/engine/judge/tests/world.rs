//! A small seeded world: three regions, error rates and slowness by arm, and the plans to judge it by.

use std::collections::BTreeMap;

use rand::RngExt;
use rand_pcg::Pcg64Mcg;

use crate::engine::judge::Judge;
use crate::engine::poll::{Arm, ArmHistogram, Measured, Poll, RegionPoll};
use crate::engine::verdict::{Judgement, Verdict};
use crate::spec::plan::*;
use crate::stats::numbers::normal_cdf;
use crate::units::{Generation, Millis, RegionName, Timestamp, Weight};

pub const REGIONS: [&str; 3] = ["us_east_1", "eu_west_1", "ap_southeast_2"];
const EDGES: [f64; 10] = [5.0, 10.0, 25.0, 50.0, 75.0, 100.0, 150.0, 250.0, 500.0, 1_000.0];

pub fn region(name: &str) -> RegionName {
    RegionName::new(name).unwrap()
}

pub fn percent(percent: f64) -> Weight {
    Weight::from_percent(percent).unwrap()
}

/// "analysis", limit.
pub type Rule = (&'static str, Test);

pub const ERRORS_OVER_1: Rule = ("error_rate", Test::Rate { factor: 0.0, offset: 0.01 });
pub const UNAVAILABLE: Rule = ("availability", Test::Rate { factor: 0.0, offset: 0.005 });
pub const MORE_ERRORS: Rule = ("error_rate", Test::Rate { factor: 1.0, offset: 0.001 });
pub const FIVE_POINTS: Rule = ("error_rate", Test::Rate { factor: 1.0, offset: 0.05 });
pub const ANY_MORE: Rule = ("error_rate", Test::Rate { factor: 1.0, offset: 0.0 });
pub const SLOWER_10: Rule = ("response_time", Test::QuantileRatio { quantile: 0.95, ratio: 1.1 });
pub const SLOWER_50: Rule = ("response_time", Test::QuantileRatio { quantile: 0.95, ratio: 1.5 });
pub const SATISFIED: Rule = ("satisfaction", Test::Level { higher_is_better: true, limit: 4.5 });
pub const HEALTHY: Rule = ("healthy", Test::Holds);

fn analysis(name: &str) -> Analysis {
    let text = String::new;
    let measurement = match name {
        "response_time" => Measurement::Latency { buckets: text(), quantile: 0.95 },
        "satisfaction" => Measurement::Gauge { query: text(), range: Some((1.0, 5.0)) },
        "healthy" => Measurement::Check {
            source: CheckSource::Promql(text()),
            every: Millis::from_secs(1),
            timeout: Millis::from_secs(1),
        },
        _ => Measurement::Proportion {
            unit: "requests".to_owned(),
            part: text(),
            part_is_good: false,
            total: text(),
        },
    };
    Analysis {
        name: name.parse().unwrap(),
        file: format!("analysis/{name}.yaml"),
        measurement,
        dry_run: false,
    }
}

fn criterion(scope: &str, line: u32, (name, test): &Rule) -> Criterion {
    let at = Location { file: "pipelines/test.yaml".to_owned(), line, column: 9 };
    let text = format!("{name} {line}");
    let id = CriterionId(format!("{scope}/{text}"));
    Criterion { id, text, at, analysis: name.parse().unwrap(), test: test.clone() }
}

/// Stages of (weight in percent, regions, criteria), and triggers.
pub fn plan(stages: &[(f64, usize, &[Rule])], triggers: &[Rule]) -> Plan {
    let stage = |index: usize, (weight, regions, rules): &(f64, usize, &[Rule])| {
        let regions: Vec<_> = REGIONS[..*regions].iter().map(|name| region(name)).collect();
        let name = format!("stage_{}", index + 1);
        let weights = regions.iter().map(|name| (name.clone(), percent(*weight))).collect();
        let criteria = rules.iter().enumerate();
        Stage {
            mirror: Weight::ZERO,
            name: name.parse().unwrap(),
            at: Location { file: "pipelines/test.yaml".to_owned(), line: 1, column: 1 },
            regions,
            weight: percent(*weight),
            criteria: criteria.map(|(at, rule)| criterion(&name, 10 + at as u32, rule)).collect(),
            steps: vec![Step { weights, mirrors: BTreeMap::new(), bake: Millis::from_secs(60) }],
            duration: Millis::from_secs(60),
            max_duration: Millis::from_secs(120),
            min_requests: 500,
            on_undecided: OnUndecided::Wait,
            gate: None,
            approvals: None,
        }
    };
    let stages: Vec<_> = stages.iter().enumerate().map(|(index, it)| stage(index, it)).collect();
    let triggers: Vec<_> = triggers
        .iter()
        .enumerate()
        .map(|(at, rule)| criterion("trigger", 30 + at as u32, rule))
        .collect();
    let all = stages.iter().flat_map(|stage| &stage.criteria).chain(&triggers);
    let names = all.map(|it| (it.analysis.clone(), analysis(it.analysis.as_str())));
    let known = |name: &&str| {
        let plan = RegionPlan {
            share: percent(30.0),
            poll: Millis::from_secs(1),
            settle: Millis::from_secs(1),
            cohort_of: None,
        };
        (region(name), plan)
    };
    Plan {
        pipeline: "test".parse().unwrap(),
        service: "api".parse().unwrap(),
        digest: String::new(),
        analyses: names.collect(),
        stages,
        triggers,
        regions: REGIONS.iter().map(known).collect(),
        policy: Policy::default(),
        manual_rollback: ManualRollback::default(),
        hooks: std::collections::BTreeSet::new(),
        requests_per_user: None,
        authority: Authority::Full,
    }
}

/// How one arm behaves.
#[derive(Clone, Copy)]
pub struct Behaviour {
    pub errors: f64,
    pub slowdown: f64,
    pub score: f64,
}

pub const FINE: Behaviour = Behaviour { errors: 0.001, slowdown: 1.0, score: 4.8 };

pub fn failing(errors: f64) -> Behaviour {
    Behaviour { errors, ..FINE }
}

pub struct World {
    random: Pcg64Mcg,
    pub now: Timestamp,
    pub generation: Generation,
    /// Requests per second, canary's weight and both arms, by region.
    pub regions: BTreeMap<&'static str, (f64, f64, Behaviour, Behaviour)>,
}

impl World {
    /// `regions` with `rps` each, both arms fine.
    pub fn new(seed: u64, regions: usize, rps: f64, weight: f64) -> Self {
        let all = REGIONS[..regions].iter().map(|name| (*name, (rps, weight, FINE, FINE)));
        Self {
            random: Pcg64Mcg::new(u128::from(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            now: Timestamp(1_000_000),
            generation: Generation(1),
            regions: all.collect(),
        }
    }

    pub fn canary(mut self, behaviour: Behaviour) -> Self {
        self.regions.values_mut().for_each(|it| it.2 = behaviour);
        self
    }

    pub fn set_weight(&mut self, weight: f64) {
        self.regions.values_mut().for_each(|it| it.1 = weight);
        self.generation = self.generation.next();
    }

    /// The next second, with every analysis of the plan.
    pub fn poll(&mut self, plan: &Plan) -> Poll {
        self.now = self.now.plus(Millis::from_secs(1));
        let names: Vec<&'static str> = self.regions.keys().copied().collect();
        let regions = names.into_iter().map(|name| (region(name), self.look(plan, name))).collect();
        Poll { at: self.now, generation: self.generation, regions }
    }

    fn look(&mut self, plan: &Plan, name: &'static str) -> RegionPoll {
        let (rps, weight, canary, stable) = self.regions[name];
        let share = weight / 100.0;
        let requests = [self.count(rps * share), self.count(rps * (1.0 - share))];
        let bad = [self.part(requests[0], canary.errors), self.part(requests[1], stable.errors)];
        let counts = |arm: usize| Arm { bad: bad[arm], total: requests[arm] };
        let measure = |world: &mut Self, analysis: &Analysis| match analysis.measurement {
            Measurement::Proportion { .. } => {
                Measured::Counts { canary: counts(0), stable: counts(1) }
            }
            Measurement::Latency { .. } => Measured::Histogram {
                bounds: EDGES.to_vec(),
                canary: world.histogram(requests[0], canary.slowdown),
                stable: world.histogram(requests[1], stable.slowdown),
            },
            Measurement::Gauge { .. } => {
                let jitter = 0.2 * (world.random.random::<f64>() - 0.5);
                Measured::Gauge {
                    canary: (requests[0] > 0.0).then_some(canary.score + jitter),
                    stable: (requests[1] > 0.0).then_some(stable.score - jitter),
                }
            }
            Measurement::Check { .. } => Measured::Check { held: true, detail: String::new() },
        };
        let measured = plan.analyses.iter();
        RegionPoll {
            mirror: Weight::ZERO,
            weight: percent(weight),
            window: Millis::from_secs(1),
            ready_for: None,
            measured: measured.map(|(name, it)| (name.clone(), measure(self, it))).collect(),
        }
    }

    fn histogram(&mut self, total: f64, slowdown: f64) -> ArmHistogram {
        let share = |edge: f64| normal_cdf((edge / (50.0 * slowdown)).ln() / 0.7);
        let (mut left, mut below, mut before) = (total, 0.0, 0.0);
        let cumulative = EDGES.iter().map(|edge| {
            let inside = (share(*edge) - before) / (1.0 - before);
            before = share(*edge);
            let count = self.part(left, inside);
            left -= count;
            below += count;
            below
        });
        ArmHistogram { cumulative: cumulative.collect(), total }
    }

    /// Poisson, by the bell curve when large.
    fn count(&mut self, mean: f64) -> f64 {
        if mean > 30.0 {
            return (mean + mean.sqrt() * self.normal()).round().max(0.0);
        }
        let (limit, mut product, mut count) = ((-mean).exp(), self.random.random::<f64>(), 0.0);
        while product > limit {
            product *= self.random.random::<f64>();
            count += 1.0;
        }
        count
    }

    /// Binomial; small means by the Poisson law, large ones by the bell curve.
    fn part(&mut self, total: f64, share: f64) -> f64 {
        let mean = total * share;
        if total <= 60.0 {
            return (0..total as u32).filter(|_| self.random.random::<f64>() < share).count()
                as f64;
        }
        if mean < 15.0 {
            return self.count(mean).min(total);
        }
        let spread = (mean * (1.0 - share).max(0.0)).sqrt();
        (mean + spread * self.normal()).round().clamp(0.0, total)
    }

    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.random.random::<f64>()).sum::<f64>() - 6.0
    }
}

/// A judge that has entered the first stage.
pub fn entered(plan: &Plan) -> Judge {
    let mut judge = Judge::new(plan);
    judge.enter(plan, 0, 0, Generation(1));
    judge
}

/// The poll at which `stop` first holds, from 1, and its judgement.
pub fn run_until(
    judge: &mut Judge,
    plan: &Plan,
    world: &mut World,
    polls: usize,
    stop: impl Fn(&Judgement) -> bool,
) -> Option<(usize, Judgement)> {
    (1..=polls).find_map(|poll| {
        let judgement = judge.observe(plan, &world.poll(plan));
        stop(&judgement).then_some((poll, judgement))
    })
}

/// The judgement after `polls` polls.
pub fn run(judge: &mut Judge, plan: &Plan, world: &mut World, polls: usize) -> Judgement {
    let mut last = None;
    for _ in 0..polls {
        last = Some(judge.observe(plan, &world.poll(plan)));
    }
    last.unwrap()
}

pub fn verdict<'a>(judgement: &'a Judgement, id: &str) -> &'a Verdict {
    judgement.verdicts.iter().find(|it| it.criterion.0.starts_with(id)).unwrap()
}
