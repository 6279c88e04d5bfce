//! One analysis' numbers of one poll, checked once.

use crate::engine::poll::{self, Measured};
use crate::stats::{Arm, Histogram};

/// Numbers that can be read: counts from 0 up, buckets in order.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Reading {
    Counts { canary: Arm, stable: Arm },
    Histogram { canary: Histogram, stable: Histogram },
    Level { canary: Option<f64>, stable: Option<f64> },
}

impl Reading {
    /// The numbers of `measured`; `None` when it holds none, an error when they make no sense.
    pub(super) fn new(measured: &Measured) -> Result<Option<Self>, String> {
        let reading = match measured {
            Measured::Counts { canary, stable } => match (arm(canary), arm(stable)) {
                (Some(canary), Some(stable)) => Self::Counts { canary, stable },
                _ => return Err("a count is negative or not a number".to_owned()),
            },
            Measured::Histogram { bounds, canary, stable } => {
                let (canary, stable) = (histogram(bounds, canary), histogram(bounds, stable));
                if !canary.is_readable() || !stable.is_readable() {
                    return Err("buckets are out of order or not numbers".to_owned());
                }
                Self::Histogram { canary, stable }
            }
            Measured::Gauge { canary, stable } => {
                if [canary, stable].into_iter().flatten().any(|value| !value.is_finite()) {
                    return Err("a value is not a number".to_owned());
                }
                Self::Level { canary: *canary, stable: *stable }
            }
            _ => return Ok(None),
        };
        Ok(Some(reading))
    }

    /// Stable as if it were the canary, with nothing to compare it with.
    pub(super) fn stable_alone(&self) -> Self {
        match self {
            Self::Counts { stable, .. } => Self::Counts { canary: *stable, stable: Arm::EMPTY },
            Self::Histogram { stable, .. } => {
                let nothing = vec![0.0; stable.edges.len()];
                let empty = Histogram::new(stable.edges.clone(), nothing, 0.0);
                Self::Histogram { canary: stable.clone(), stable: empty }
            }
            Self::Level { stable, .. } => Self::Level { canary: *stable, stable: None },
        }
    }

    /// Requests of both arms; `None` for a gauge, which counts none.
    pub(super) fn requests(&self) -> Option<(f64, f64)> {
        match self {
            Self::Counts { canary, stable } => Some((canary.requests, stable.requests)),
            Self::Histogram { canary, stable } => Some((canary.total, stable.total)),
            Self::Level { .. } => None,
        }
    }
}

fn arm(arm: &poll::Arm) -> Option<Arm> {
    Arm::new(arm.bad, arm.total).cleaned()
}

fn histogram(bounds: &[f64], arm: &poll::ArmHistogram) -> Histogram {
    // An arm without traffic may come without buckets.
    let empty = arm.total == 0.0 && arm.cumulative.is_empty();
    let cumulative = if empty { vec![0.0; bounds.len()] } else { arm.cumulative.clone() };
    Histogram::new(bounds.to_vec(), cumulative, arm.total)
}

/// Adds `other` to `sum` on the edges that both have; starts over with `other` when they share none.
pub(super) fn merge(sum: &mut Histogram, other: &Histogram) {
    if sum.edges != other.edges {
        *sum = sum.restricted(&other.edges);
    }
    if sum.edges.is_empty() {
        *sum = other.clone();
        return;
    }
    for (edge, count) in sum.edges.iter().zip(&mut sum.cumulative) {
        *count += other.count_up_to(*edge).unwrap_or(0.0);
    }
    sum.total += other.total;
}
