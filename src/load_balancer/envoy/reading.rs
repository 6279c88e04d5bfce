//! One reading out of what the instances show.

use crate::ports::{InstanceReading, Reading, Split};
use crate::units::Generation;

/// Most instances that a note names.
const NAMED_MAX: usize = 5;

/// What one instance shows.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// Its own name.
    pub name: String,
    /// The weights, once per place in the document where the two clusters share traffic; empty when unknown.
    pub splits: Vec<Split>,
    /// The generation that it shows.
    pub generation: Option<Generation>,
    /// It answers now.
    pub connected: bool,
    /// Why it does not count as agreeing.
    pub problem: Option<String>,
}

impl Seen {
    /// An instance whose weights are unknown.
    pub fn problem(name: String, connected: bool, problem: String) -> Self {
        Self { name, splits: Vec::new(), generation: None, connected, problem: Some(problem) }
    }

    /// It shows `split` everywhere, and `generation` where that is asked.
    pub fn shows(&self, split: &Split, generation: Option<Generation>) -> bool {
        !self.splits.is_empty()
            && self.splits.iter().all(|shown| shown == split)
            && (generation.is_none() || self.generation == generation)
    }

    /// Its weights: where they differ within it, those that are not `expected`.
    fn split(&self, expected: Option<&Split>) -> Option<&Split> {
        self.splits.iter().find(|split| Some(*split) != expected).or(self.splits.first())
    }
}

/// What all instances should show.
#[derive(Debug, Clone, PartialEq)]
pub struct Expected {
    /// The weights.
    pub split: Split,
    /// Its generation; not compared when `None`.
    pub generation: Option<Generation>,
}

/// Merges what instances show. Settled when all of them show what is expected (or one and the same, where nothing is),
/// none has a problem and there is at least one. `None` when no instance shows any weights.
pub fn merge(
    expected: Option<&Expected>,
    seen: &[Seen],
    mut notes: Vec<String>,
) -> Option<Reading> {
    let wanted = expected.map(|expected| &expected.split);
    let splits: Vec<_> = seen.iter().filter_map(|one| one.split(wanted)).collect();
    // Where they differ, what is not as it should be is the news.
    let split = splits
        .iter()
        .copied()
        .find(|split| Some(*split) != wanted)
        .or(splits.first().copied())?
        .clone();
    let reference = Expected {
        split: wanted.unwrap_or(&split).clone(),
        generation: expected.and_then(|expected| expected.generation),
    };
    let problems: Vec<_> =
        seen.iter().filter_map(|one| Some((one, disagreement(one, &reference)?))).collect();
    for (one, problem) in problems.iter().take(NAMED_MAX) {
        notes.push(format!("{} {problem}", one.name));
    }
    if problems.len() > NAMED_MAX {
        notes.push(format!("and {} more", problems.len() - NAMED_MAX));
    }
    let generations: Option<Vec<_>> = seen.iter().map(|one| one.generation).collect();
    Some(Reading {
        split,
        settled: notes.is_empty(),
        generation: generations.and_then(|all| all.into_iter().min()),
        instances: seen.iter().map(|one| instance(one, wanted)).collect(),
        backends: None,
        restart_marker: None,
        note: (!notes.is_empty()).then(|| notes.join("; ")),
    })
}

fn disagreement(one: &Seen, reference: &Expected) -> Option<String> {
    if let Some(problem) = &one.problem {
        return Some(problem.clone());
    }
    if one.shows(&reference.split, reference.generation) {
        return None;
    }
    let shown = one.split(Some(&reference.split))?;
    if *shown != reference.split {
        return Some(format!("shows {shown}"));
    }
    let generation = one.generation.map_or("none".to_owned(), |generation| generation.to_string());
    Some(format!("shows generation {generation}"))
}

fn instance(one: &Seen, wanted: Option<&Split>) -> InstanceReading {
    InstanceReading {
        name: one.name.clone(),
        split: one.split(wanted).cloned(),
        connected: one.connected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load_balancer::pair::tests::split;

    fn seen(name: &str, percents: &[f64], generation: u64) -> Seen {
        Seen {
            name: name.to_owned(),
            splits: percents.iter().map(|percent| split(*percent)).collect(),
            generation: Some(Generation(generation)),
            connected: true,
            problem: None,
        }
    }

    fn expected(percent: f64, generation: u64) -> Expected {
        Expected { split: split(percent), generation: Some(Generation(generation)) }
    }

    #[test]
    fn all_agree() {
        let reading = merge(
            Some(&expected(5.0, 3)),
            &[seen("a", &[5.0], 3), seen("b", &[5.0, 5.0], 3)],
            vec![],
        );
        let reading = reading.unwrap();
        assert!(reading.settled && reading.note.is_none());
        assert_eq!((reading.split, reading.generation), (split(5.0), Some(Generation(3))));
    }

    #[test]
    fn one_lags() {
        let reading =
            merge(Some(&expected(5.0, 3)), &[seen("a", &[5.0], 3), seen("b", &[1.0], 2)], vec![])
                .unwrap();
        assert!(!reading.settled);
        assert_eq!((reading.split, reading.generation), (split(1.0), Some(Generation(2))));
        assert_eq!(reading.note.as_deref(), Some("b shows blue 99 % green 1 %"));
    }

    #[test]
    fn one_route_of_an_instance_differs() {
        let reading =
            merge(Some(&expected(5.0, 3)), &[seen("a", &[5.0, 50.0], 3)], vec![]).unwrap();
        assert!(!reading.settled);
        assert_eq!(reading.split, split(50.0));
    }

    #[test]
    fn out_of_reach_is_named_and_many_are_counted() {
        let mut all = vec![seen("a", &[5.0], 3)];
        all.extend(
            (0..7).map(|n| Seen::problem(format!("gone-{n}"), false, "does not answer".to_owned())),
        );
        let reading = merge(Some(&expected(5.0, 3)), &all, vec![]).unwrap();
        let note = reading.note.unwrap();
        assert!(
            !reading.settled
                && note.starts_with("gone-0 does not answer; ")
                && note.ends_with("and 2 more")
        );
        assert_eq!(reading.generation, None);
    }

    #[test]
    fn nothing_shown_is_no_reading() {
        assert_eq!(merge(None, &[], vec![]), None);
        assert_eq!(merge(None, &[Seen::problem("a".into(), true, "x".into())], vec![]), None);
    }
}
