//! What reaches a canary: answered requests or copies of them.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Weight;

/// What reaches a canary in a region: requests by weight, or copies of requests whose answers nobody gets. A weight is
/// more than any copies. Written as the weight alone where nothing is copied.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(from = "ReachForm", into = "ReachForm")]
pub struct Reach {
    /// Share of the region's requests that the canary answers.
    pub weight: Weight,
    /// Share of the region's requests that it gets copies of.
    pub mirror: Weight,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum ReachForm {
    Weight(Weight),
    Both { weight: Weight, mirror: Weight },
}

impl From<ReachForm> for Reach {
    fn from(form: ReachForm) -> Self {
        match form {
            ReachForm::Weight(weight) => weight.into(),
            ReachForm::Both { weight, mirror } => Self { weight, mirror },
        }
    }
}

impl From<Reach> for ReachForm {
    fn from(Reach { weight, mirror }: Reach) -> Self {
        if mirror.is_zero() { Self::Weight(weight) } else { Self::Both { weight, mirror } }
    }
}

impl Reach {
    /// Nothing reaches it.
    pub const NONE: Self = Self { weight: Weight::ZERO, mirror: Weight::ZERO };

    /// Nothing at all.
    #[must_use]
    pub fn is_none(self) -> bool {
        self == Self::NONE
    }

    /// The canary's part of all requests that one of the arms sees, copies included; 0 to 1.
    #[must_use]
    pub fn canary_fraction(self) -> f64 {
        let copies = self.mirror.fraction();
        (self.weight.fraction() + copies) / (1.0 + copies)
    }
}

impl From<Weight> for Reach {
    fn from(weight: Weight) -> Self {
        Self { weight, mirror: Weight::ZERO }
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.weight, self.mirror) {
            (weight, Weight::ZERO) => weight.fmt(formatter),
            (Weight::ZERO, mirror) => formatter.pad(&format!("{mirror} mirrored")),
            (weight, mirror) => formatter.pad(&format!("{weight} and {mirror} mirrored")),
        }
    }
}
