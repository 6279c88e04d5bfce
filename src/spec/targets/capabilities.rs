//! What a kind of load balancer can do. `check` reasons with it, and the adapters answer with it.

use serde::{Deserialize, Serialize};

use super::affinity::Keeping;
use crate::units::{Millis, Weight};

/// What an adapter can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Which shares it can show.
    pub steps: Steps,
    /// Weights outlive a restart of the balancer itself (what `promotion: swap` needs).
    pub weights_survive_restart: bool,
    /// Sees each instance of the data plane by itself.
    pub sees_instances: bool,
    /// What keeps an older writer from undoing a newer one.
    pub fencing: Fencing,
    /// How long users may still go by older weights after newer ones are in force: the TTL of a name; zero for most.
    pub effect_lag: Millis,
    /// Which shares of the requests it can copy to a slot.
    pub mirror: Mirroring,
    /// Sees each request, so that a header or a cookie can choose it: what a cohort needs. A name server sees names only.
    pub sees_requests: bool,
    /// How it keeps users on the arm that they met first.
    pub keeps_users: Keeping,
}

/// Which shares of the requests a balancer can copy to a slot without anybody getting the answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mirroring {
    /// None.
    None,
    /// Every hundredth of a percent.
    Hundredths,
    /// Every whole percent.
    Percents,
}

impl Mirroring {
    /// Whether it can copy this share.
    #[must_use]
    pub fn copies(self, share: Weight) -> bool {
        match self {
            Self::None => share.is_zero(),
            Self::Hundredths => true,
            Self::Percents => share.hundredths().is_multiple_of(100),
        }
    }

    /// For people: `copies whole percents`.
    #[must_use]
    pub fn says(self) -> &'static str {
        match self {
            Self::None => "copies no requests",
            Self::Hundredths => "copies steps of 0.01%",
            Self::Percents => "copies whole percents",
        }
    }
}

/// What keeps an older writer from undoing a newer one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fencing {
    /// Grade A: the balancer itself refuses a write over something that has changed since it was read.
    CompareAndSet,
    /// Grade B: a generation stands beside the weights, and is looked at before writing.
    Marker,
    /// Grade C: only the process that wrote remembers its newest generation.
    Process,
}

impl Fencing {
    /// `A`, `B` or `C`.
    #[must_use]
    pub fn grade(self) -> char {
        match self {
            Self::CompareAndSet => 'A',
            Self::Marker => 'B',
            Self::Process => 'C',
        }
    }
}

/// Which shares a balancer can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Steps {
    /// Every hundredth of a percent.
    Hundredths,
    /// What two whole weights from 0 to this can show to the hundredth of a percent.
    Pairs(u32),
    /// Every whole percent.
    Percents,
    /// All or nothing.
    Ends,
}

/// Sums of two weights, by preference: nearly the same for all shares, so that the order of two changes matters little.
const SUMS: [u32; 4] = [200, 1_000, 250, 256];

impl Steps {
    /// Whether a share can be shown.
    #[must_use]
    pub fn show(self, share: Weight) -> bool {
        self.pair(share).is_some()
    }

    /// Two weights whose share is this one to the hundredth of a percent; `None` where the steps are too coarse.
    ///
    /// Only 0 % has a first weight of 0, and only 100 % a second one.
    #[must_use]
    pub fn pair(self, share: Weight) -> Option<[u32; 2]> {
        let hundredths = u32::from(share.hundredths());
        match (self, hundredths) {
            (Self::Hundredths, _) => Some([hundredths, 10_000 - hundredths]),
            (Self::Pairs(most), 0) => Some([0, SUMS[0].min(most)]),
            (Self::Pairs(most), 10_000) => Some([SUMS[0].min(most), 0]),
            (Self::Pairs(most), _) => {
                let sums = SUMS.into_iter().chain((2..=2 * most).rev());
                sums.into_iter().find_map(|sum| fitting(share, sum, most))
            }
            (Self::Percents, _) => {
                let percent = hundredths / 100;
                (hundredths % 100 == 0).then_some([percent, 100 - percent])
            }
            (Self::Ends, 0) => Some([0, 1]),
            (Self::Ends, 10_000) => Some([1, 0]),
            (Self::Ends, _) => None,
        }
    }

    /// For people: `weights of 0 to 256`.
    #[must_use]
    pub fn says(self) -> String {
        match self {
            Self::Hundredths => "steps of 0.01%".to_owned(),
            Self::Pairs(most) => format!("two weights of 0 to {most}"),
            Self::Percents => "whole percents".to_owned(),
            Self::Ends => "all or nothing".to_owned(),
        }
    }
}

/// Both weights with this sum, if they fit and show exactly this share.
fn fitting(share: Weight, sum: u32, most: u32) -> Option<[u32; 2]> {
    let part = share.scaled_to(sum);
    let rest = sum.checked_sub(part)?;
    let exact = Weight::from_ratio(u64::from(part), u64::from(sum)) == Some(share);
    let in_range = (1..=most).contains(&part) && (1..=most).contains(&rest);
    (exact && in_range).then_some([part, rest])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn percent(percent: f64) -> Weight {
        Weight::from_percent(percent).unwrap()
    }

    #[test]
    fn shares_are_exact_to_the_hundredth_or_refused() {
        let haproxy = Steps::Pairs(256);
        assert_eq!(haproxy.pair(percent(5.0)), Some([10, 190]));
        assert_eq!(haproxy.pair(percent(50.0)), Some([100, 100]));
        assert_eq!(haproxy.pair(percent(0.5)), Some([1, 199]));
        assert_eq!(haproxy.pair(percent(0.4)), Some([1, 249]));
        assert_eq!(haproxy.pair(percent(0.01)), None);
        assert_eq!(Steps::Pairs(999).pair(percent(0.1)), Some([1, 999]));
        for most in [255, 256, 999] {
            for hundredths in 0..=10_000_u16 {
                let share = percent(f64::from(hundredths) / 100.0);
                let Some([one, other]) = Steps::Pairs(most).pair(share) else { continue };
                assert!(one <= most && other <= most);
                assert_eq!(Weight::from_ratio(u64::from(one), u64::from(one + other)), Some(share));
                assert_eq!((one == 0, other == 0), (share.is_zero(), share == Weight::FULL));
            }
            // Every whole percent, and every half.
            assert!((0..=200).all(|half| Steps::Pairs(most).show(percent(f64::from(half) / 2.0))));
        }
    }

    #[test]
    fn all_or_nothing_and_every_hundredth() {
        assert!(Steps::Ends.show(Weight::ZERO) && Steps::Ends.show(Weight::FULL));
        assert!(!Steps::Ends.show(percent(50.0)));
        assert_eq!(Steps::Percents.pair(percent(5.0)), Some([5, 95]));
        assert!(Steps::Percents.show(Weight::FULL) && !Steps::Percents.show(percent(0.5)));
        assert_eq!(Steps::Hundredths.pair(percent(0.01)), Some([1, 9_999]));
    }
}
