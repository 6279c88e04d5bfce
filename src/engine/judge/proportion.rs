//! Between which shares one arm lies, at any time of looking.
//!
//! A share is ruled out when the beta mixture around it wins 1/alpha against it (Robbins). It pools over time, which
//! drift can deceive: for display, and for what stable was in its last minutes.

use crate::stats::Arm;
use crate::stats::traffic_split::{CONCENTRATION, log_split_e_value};

/// Halvings of the bracket around an end; far below any share that matters.
const STEPS: usize = 40;

/// Upper end of the share, with error at most `alpha`; `None` without requests.
pub(super) fn upper(arm: Arm, alpha: f64) -> Option<f64> {
    end(arm, alpha, 1.0)
}

/// Lower end of the share, with error at most `alpha`; `None` without requests.
pub(super) fn lower(arm: Arm, alpha: f64) -> Option<f64> {
    end(arm, alpha, 0.0)
}

fn end(arm: Arm, alpha: f64, outermost: f64) -> Option<f64> {
    let counts = [arm.events, arm.requests - arm.events];
    let (mut inside, mut outside) = (arm.rate()?, outermost);
    for _ in 0..STEPS {
        let share = 0.5 * (inside + outside);
        if log_split_e_value(&counts, &[share, 1.0 - share], CONCENTRATION) >= -alpha.ln() {
            outside = share;
        } else {
            inside = share;
        }
    }
    Some(outside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_holds_the_share_and_tightens_with_data() {
        let both = |events, requests| {
            let arm = Arm::new(events, requests);
            (lower(arm, 0.01).unwrap(), upper(arm, 0.01).unwrap())
        };
        let (low, high) = both(10.0, 10_000.0);
        assert!(low < 0.001 && 0.001 < high && high < 0.004, "{low} {high}");
        let (low, high) = both(1_000.0, 1_000_000.0);
        assert!(0.0008 < low && high < 0.0012, "{low} {high}");
        let (low, high) = both(0.0, 1_000.0);
        assert!(low < 1e-9 && 0.0 < high && high < 0.02, "{low} {high}");
        assert_eq!(upper(Arm::EMPTY, 0.01), None);
    }
}
