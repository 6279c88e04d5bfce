//! The shortest list of faults that still breaks a promise.

use super::fault::Planned;
use super::simulation::Report;

/// Drops faults one by one while `run` still reports a violation; returns the report of what is left.
pub fn shrink(first: Report, run: impl Fn(Vec<Planned>) -> Report) -> Report {
    let mut smallest = first;
    let mut index = 0;
    while index < smallest.faults.len() {
        let mut fewer = smallest.faults.clone();
        fewer.remove(index);
        let report = run(fewer);
        if report.violations.is_empty() {
            index += 1;
        } else {
            smallest = report;
        }
    }
    smallest
}
