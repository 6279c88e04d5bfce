//! One answer from many monitors.
//!
//! The weighted average of e-values is an e-value whatever their dependence, so a rollout is rolled back when the average
//! over metrics, regions and pools reaches 1/alpha: never later than splitting alpha among them. Dependent ones must not
//! be multiplied. For people, the list of monitors that stand out is made by e-BH, which keeps the share of false ones
//! at the wanted level.
//!
//! Exact. Source: Vovk and Wang (averaging); Wang and Ramdas (e-BH).

use super::numbers::log_sum;

/// One monitor's say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Part {
    /// ln of its bad wealth. NaN counts as nothing won.
    pub log_wealth: f64,
    /// Its weight, above 0; weights need not sum to 1. Others are left out.
    pub weight: f64,
}

impl Part {
    /// A monitor's `log_wealth` with its `weight`.
    pub const fn new(log_wealth: f64, weight: f64) -> Self {
        Self { log_wealth, weight }
    }

    fn counts(&self) -> bool {
        self.weight > 0.0 && self.weight.is_finite()
    }

    /// ln of weight * wealth, for weights that sum to `total`.
    fn log_share(&self, total: f64) -> f64 {
        if self.log_wealth.is_nan() || !self.counts() {
            f64::NEG_INFINITY
        } else {
            self.log_wealth + (self.weight / total).ln()
        }
    }
}

fn total_weight(parts: &[Part]) -> f64 {
    parts.iter().filter(|part| part.counts()).map(|part| part.weight).sum()
}

/// ln of the weighted average wealth; minus infinity without any part.
pub fn log_average(parts: &[Part]) -> f64 {
    let total = total_weight(parts);
    log_sum(parts.iter().map(|part| part.log_share(total)))
}

/// Positions of the parts that reach 1/`alpha` by their own weighted wealth.
///
/// Empty although the average reached it: the evidence is combined; name the first few of [`contributors`].
pub fn culprits(parts: &[Part], alpha: f64) -> Vec<usize> {
    let total = total_weight(parts);
    let reaches = |part: &Part| part.log_share(total) >= -alpha.ln();
    parts.iter().enumerate().filter(|(_, part)| reaches(part)).map(|(index, _)| index).collect()
}

/// Positions of all parts, the largest contribution to the average first.
pub fn contributors(parts: &[Part]) -> Vec<usize> {
    let total = total_weight(parts);
    let mut order: Vec<usize> = (0..parts.len()).collect();
    order.sort_by(|one, other| {
        parts[*other].log_share(total).total_cmp(&parts[*one].log_share(total))
    });
    order
}

/// Positions, ascending, of the monitors that stand out while at most a share `level` of them does so falsely.
///
/// Takes ln of e-values; NaN never stands out but counts among the monitors looked at.
pub fn stand_out(log_e_values: &[f64], level: f64) -> Vec<usize> {
    let value = |index: &usize| {
        let value = log_e_values[*index];
        if value.is_nan() { f64::NEG_INFINITY } else { value }
    };
    let mut order: Vec<usize> = (0..log_e_values.len()).collect();
    order.sort_by(|one, other| value(other).total_cmp(&value(one)));
    let threshold = (log_e_values.len() as f64 / level).ln();
    let passes = |rank: usize, index: &usize| value(index) + (rank as f64).ln() >= threshold;
    let found = (1..=order.len()).rev().find(|rank| passes(*rank, &order[rank - 1])).unwrap_or(0);
    order.truncate(found);
    order.sort_unstable();
    order
}

/// "1 in how many": the odds that a wealth stands for, at least 1.
pub fn odds(log_wealth: f64) -> f64 {
    log_wealth.max(0.0).exp()
}

/// The p-value that stays true however often one looks: the smallest 1/wealth so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct SequentialP {
    log_wealth_max: f64,
}

impl SequentialP {
    /// Takes in the wealth of the latest look; NaN changes nothing.
    pub fn observe(&mut self, log_wealth: f64) {
        self.log_wealth_max = self.log_wealth_max.max(log_wealth).min(f64::MAX);
    }

    /// In \[0, 1\]; 1 before the first look.
    pub fn value(&self) -> f64 {
        (-self.log_wealth_max).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nan_contributes_nothing() {
        let fine = [Part::new(3.0, 1.0), Part::new(f64::NEG_INFINITY, 1.0)];
        let broken = [Part::new(3.0, 1.0), Part::new(f64::NAN, 1.0)];
        assert_eq!(log_average(&fine), log_average(&broken));
        assert_eq!(log_average(&[]), f64::NEG_INFINITY);
        assert_eq!(log_average(&[Part::new(9.0, f64::NAN)]), f64::NEG_INFINITY);
        assert_eq!(stand_out(&[f64::NAN, f64::NAN], 0.05), Vec::<usize>::new());
    }

    #[test]
    fn culprits_are_named_or_the_evidence_is_combined() {
        let one = [Part::new(6.0, 1.0), Part::new(0.0, 1.0)];
        assert_eq!(culprits(&one, 0.01), [0]);
        let both = [Part::new(4.7, 1.0), Part::new(4.8, 1.0)];
        assert!(log_average(&both) >= 100.0_f64.ln());
        assert_eq!(culprits(&both, 0.01), Vec::<usize>::new());
        assert_eq!(contributors(&both), [1, 0]);
    }

    #[test]
    fn a_sequential_p_value_never_rises() {
        let mut p = SequentialP::default();
        assert_eq!(p.value(), 1.0);
        for log_wealth in [2.0, -3.0, f64::NAN, 1.0] {
            p.observe(log_wealth);
            assert_eq!(p.value(), (-2.0_f64).exp());
        }
        assert_eq!(odds(-1.0), 1.0);
        assert!((odds(100.0_f64.ln()) - 100.0).abs() < 1e-9);
    }
}
