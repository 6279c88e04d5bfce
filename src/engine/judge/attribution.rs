//! Whose fault it is: canary or stable, here or everywhere.

use std::collections::BTreeSet;

use super::harm::Role;
use super::outcome::Scene;
use super::{Judge, LOG_HOLD};
use crate::units::RegionName;

impl Judge {
    /// One plain sentence from which arms are beyond their limits in which regions; `None` when no region stands out.
    pub(super) fn attribution(&self, scene: &Scene) -> Option<String> {
        let (mut canary, mut stable) = (BTreeSet::new(), BTreeSet::new());
        for (set, harm) in self.sets.iter().zip(&scene.harm.sets) {
            if harm.role == Role::Shown {
                continue;
            }
            canary.extend(set.concurrent.regions_above(LOG_HOLD));
            canary.extend(set.nonconcurrent.iter().flat_map(|it| it.regions_above(LOG_HOLD)));
            stable.extend(set.stable.iter().flat_map(|it| it.regions_above(LOG_HOLD)));
        }
        canary.retain(|region| scene.regions.contains(region));
        let both: BTreeSet<_> = canary.intersection(&stable).cloned().collect();
        let fine = scene.regions.iter().filter(|region| !canary.contains(*region)).count();
        match (canary.is_empty(), stable.is_empty()) {
            (true, true) => None,
            (true, false) => Some(format!(
                "stable alone is beyond a limit in {}: not the new version",
                list(&stable)
            )),
            (false, true) if fine == 0 => Some(
                "the canary is worse in every region and stable is fine: the new version"
                    .to_owned(),
            ),
            (false, true) => Some(format!(
                "the canary is worse in {} only and stable is fine there: the new version under what is special there",
                list(&canary)
            )),
            (false, false) if both.is_empty() => Some(format!(
                "the canary is worse in {} where stable is fine, and stable is beyond a limit in {}: two things at once",
                list(&canary),
                list(&stable)
            )),
            (false, false) if fine == 0 => Some(format!(
                "both arms are beyond a limit in {}: a shared cause, not the new version",
                list(&both)
            )),
            (false, false) => Some(format!(
                "both arms are beyond a limit in {} and nowhere else: the region, not the new version",
                list(&both)
            )),
        }
    }
}

fn list(regions: &BTreeSet<RegionName>) -> String {
    regions.iter().map(RegionName::as_str).collect::<Vec<_>>().join(", ")
}
