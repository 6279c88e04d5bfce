//! The two slots of a service and what stands for each at a load balancer: a cluster, a server, a pool.

use std::collections::BTreeMap;

use crate::ports::Split;
use crate::units::{SlotName, Weight};

/// Why slots, clusters and weights do not belong together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not two slots with a name each.
    #[error("needs two slots with a name each, has {0}")]
    Count(usize),
    /// Both slots have one name.
    #[error("both slots are `{0}`")]
    Same(String),
    /// The split names other slots.
    #[error("weights are for other slots than `{0}` and `{1}`")]
    Slots(SlotName, SlotName),
    /// The split asks for copies of requests.
    #[error("cannot copy requests")]
    Copies,
    /// The split does not sum to 100 %.
    #[error("weights sum to {0} hundredths of a percent, not to 10000")]
    Sum(u32),
}

/// Two slots, each with its name at the load balancer; in the order of the slots' names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pair {
    slots: [SlotName; 2],
    names: [String; 2],
}

impl Pair {
    /// Checks that there are two slots with different names.
    pub fn new(names: &BTreeMap<SlotName, String>) -> Result<Self, Error> {
        let mut entries = names.iter();
        let (Some(one), Some(two), None) = (entries.next(), entries.next(), entries.next()) else {
            return Err(Error::Count(names.len()));
        };
        if one.1 == two.1 {
            return Err(Error::Same(one.1.clone()));
        }
        Ok(Self { slots: [one.0.clone(), two.0.clone()], names: [one.1.clone(), two.1.clone()] })
    }

    /// What stands for the slots, in the order of the slots' names.
    #[must_use]
    pub fn names(&self) -> &[String; 2] {
        &self.names
    }

    /// The slots, in the order of their names.
    #[must_use]
    pub fn slots(&self) -> &[SlotName; 2] {
        &self.slots
    }

    /// A name for the pair that does not depend on how slots are called: `api-blue/api-green`.
    #[must_use]
    pub fn key(&self) -> String {
        let [one, two] = &self.names;
        if one < two { format!("{one}/{two}") } else { format!("{two}/{one}") }
    }

    /// The two weights in the order of `names`; an error unless they are for these slots and sum to 100 %, or where
    /// requests are to be copied.
    pub fn weights(&self, split: &Split) -> Result<[Weight; 2], Error> {
        let (weights, copies) = self.weights_and_copies(split)?;
        if copies == [Weight::ZERO; 2] { Ok(weights) } else { Err(Error::Copies) }
    }

    /// The two weights and the shares that are copied, each in the order of `names`.
    pub fn weights_and_copies(&self, split: &Split) -> Result<([Weight; 2], [Weight; 2]), Error> {
        let [one, two] = &self.slots;
        let (Some(first), Some(second), 2) = (split.get(one), split.get(two), split.len()) else {
            return Err(Error::Slots(one.clone(), two.clone()));
        };
        let sum = u32::from(first.hundredths()) + u32::from(second.hundredths());
        if sum != 10_000 {
            return Err(Error::Sum(sum));
        }
        if split.copies.keys().any(|slot| !self.slots.contains(slot)) {
            return Err(Error::Slots(one.clone(), two.clone()));
        }
        let copies = |slot: &SlotName| split.copies.get(slot).copied().unwrap_or_default();
        Ok(([*first, *second], [copies(one), copies(two)]))
    }

    /// The split in which the first slot has `part` of `whole`; `None` when `whole` is 0 or less than `part`.
    #[must_use]
    pub fn split(&self, part: u64, whole: u64) -> Option<Split> {
        let first = Weight::from_ratio(part, whole)?;
        let [one, two] = self.slots.clone();
        Some(Split::from([(one, first), (two, first.complement())]))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::load_balancer) fn pair() -> Pair {
        Pair::new(&BTreeMap::from([
            ("blue".parse().unwrap(), "api-blue".to_owned()),
            ("green".parse().unwrap(), "api-green".to_owned()),
        ]))
        .unwrap()
    }

    pub(in crate::load_balancer) fn split(green_percent: f64) -> Split {
        let green = Weight::from_percent(green_percent).unwrap();
        Split::from([
            ("blue".parse().unwrap(), green.complement()),
            ("green".parse().unwrap(), green),
        ])
    }

    #[test]
    fn weights_are_checked() {
        assert_eq!(pair().weights(&split(5.0)).unwrap().map(Weight::hundredths), [9_500, 500]);
        let mut short = split(5.0);
        short.insert("green".parse().unwrap(), Weight::ZERO);
        assert_eq!(pair().weights(&short), Err(Error::Sum(9_500)));
        short.remove(&"green".parse::<SlotName>().unwrap());
        assert!(matches!(pair().weights(&short), Err(Error::Slots(..))));
    }

    #[test]
    fn two_different_names_are_needed() {
        let one = BTreeMap::from([("blue".parse().unwrap(), "api".to_owned())]);
        assert_eq!(Pair::new(&one), Err(Error::Count(1)));
        let same = BTreeMap::from([
            ("blue".parse().unwrap(), "api".to_owned()),
            ("green".parse().unwrap(), "api".to_owned()),
        ]);
        assert_eq!(Pair::new(&same), Err(Error::Same("api".to_owned())));
    }
}
