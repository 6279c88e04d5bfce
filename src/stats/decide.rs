//! What the numbers alone say should happen next.
//!
//! The strongest statement wins: roll back, hold, promote, go on, give up. Promoting needs *every* criterion proven now,
//! so its error stays at most beta however many criteria there are (intersection-union).

use serde::{Deserialize, Serialize};

/// What the evidence allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// The limit is shown to be broken.
    Rollback,
    /// Enough signs of harm not to go on.
    Hold,
    /// Every criterion is proven and the time to hold is over.
    Promote,
    /// Keep looking.
    Continue,
    /// Time is over and nothing is shown either way.
    Inconclusive,
}

/// The lines that wealth has to reach, as chances of a false decision.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Thresholds {
    /// Of a false rollback.
    pub alpha: f64,
    /// Of a false hold.
    pub warn: f64,
    /// Of a false proof.
    pub beta: f64,
}

impl Default for Thresholds {
    /// Roll back at 1 %, hold at 5 %, prove at 5 %.
    fn default() -> Self {
        Self { alpha: 0.01, warn: 0.05, beta: 0.05 }
    }
}

/// Decides from the combined bad wealth and the ok wealth of every criterion, all in logs.
///
/// NaN decides nothing: it neither rolls back nor lets anything be promoted. No criteria promote nothing.
pub fn decide(
    log_bad: f64,
    logs_ok: &[f64],
    thresholds: Thresholds,
    bake_done: bool,
    time_left: bool,
) -> Decision {
    let reaches = |log: f64, chance: f64| log >= -chance.ln();
    let proven = !log_bad.is_nan()
        && !logs_ok.is_empty()
        && logs_ok.iter().all(|log| reaches(*log, thresholds.beta));
    if reaches(log_bad, thresholds.alpha) {
        Decision::Rollback
    } else if reaches(log_bad, thresholds.warn) {
        Decision::Hold
    } else if proven && bake_done {
        Decision::Promote
    } else if proven || time_left {
        Decision::Continue
    } else {
        Decision::Inconclusive
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nan_never_decides() {
        let lines = Thresholds::default();
        assert_eq!(decide(f64::NAN, &[9.0], lines, true, true), Decision::Continue);
        assert_eq!(decide(0.0, &[9.0, f64::NAN], lines, true, true), Decision::Continue);
        assert_eq!(decide(0.0, &[f64::NAN], lines, true, false), Decision::Inconclusive);
        assert_eq!(decide(0.0, &[], lines, true, true), Decision::Continue);
    }
}
