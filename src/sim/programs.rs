//! The operator's own programs behind the hooks: they fail, hang and are killed now and then.

use std::collections::BTreeSet;

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

use crate::engine::hooks::{HookCall, Standing};
use crate::spec::plan::Hook;
use crate::units::RegionName;

/// What has really been done.
#[derive(Debug)]
pub(super) struct Programs {
    random: Pcg64Mcg,
    done: BTreeSet<(RegionName, Hook)>,
}

impl Programs {
    pub(super) fn new(seed: u64) -> Self {
        Self { random: Pcg64Mcg::seed_from_u64(seed ^ 0x9006), done: BTreeSet::new() }
    }

    /// Runs one, or says that it was done already; what can be known of its end. Nothing goes wrong where all is `well`.
    pub(super) fn run(&mut self, call: &HookCall, well: bool) -> Standing {
        let what = (call.region.clone(), call.hook);
        if call.is_again() && self.done.contains(&what) {
            return Standing::Done;
        }
        let unknown = || Standing::Unknown("no end in time".to_owned());
        let (is_done, told) = match self.random.random_range(0..10) {
            0 if !well => (false, Standing::Failed("exit code 1".to_owned())),
            1 if !well => (false, unknown()),
            2 if !well => (true, unknown()),
            _ => (true, Standing::Done),
        };
        if is_done {
            self.done.insert(what);
        }
        told
    }

    /// It is done there.
    pub(super) fn have_done(&self, region: &RegionName, hook: Hook) -> bool {
        self.done.contains(&(region.clone(), hook))
    }
}
