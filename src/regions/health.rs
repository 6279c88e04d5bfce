//! Whether a region is healthy: so many failures in a row say no, so many successes in a row say yes again.

/// Health with hysteresis. A region is healthy until its probes say otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    failures_max: u32,
    successes_min: u32,
    healthy: bool,
    in_a_row: u32,
}

impl Health {
    /// `failures` in a row make it unhealthy, `successes` in a row healthy again; both at least 1.
    #[must_use]
    pub fn new(failures: u32, successes: u32) -> Self {
        Self {
            failures_max: failures.max(1),
            successes_min: successes.max(1),
            healthy: true,
            in_a_row: 0,
        }
    }

    /// Takes one probe in; whether the region is healthy now.
    pub fn probed(&mut self, succeeded: bool) -> bool {
        if succeeded == self.healthy {
            self.in_a_row = 0;
            return self.healthy;
        }
        self.in_a_row += 1;
        let needed = if self.healthy { self.failures_max } else { self.successes_min };
        if self.in_a_row >= needed {
            self.healthy = succeeded;
            self.in_a_row = 0;
        }
        self.healthy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_changes_after_enough_probes_in_a_row_and_not_before() {
        let mut health = Health::new(3, 2);
        let probes = [false, false, true, false, false, false, true, false, true, true];
        let seen: Vec<_> = probes.iter().map(|&probe| health.probed(probe)).collect();
        assert_eq!(seen, [true, true, true, true, true, false, false, false, false, true]);
    }
}
