//! Load balancers that the operator brings along, behind a protocol of ours: an HTTP endpoint, or a program.
//!
//! Both take `{"weights": {"blue": 95, "green": 5}, "generation": 7}` and answer with what the data plane does, see
//! [`protocol`]. `docs/load-balancers.md` has the page for those who write one.

mod http;
mod program;
pub mod protocol;

pub use http::HttpBalancer;
pub use program::ProgramBalancer;

use super::fence::Fence;
use crate::ports::{Capabilities, Fencing, Outcome, Split};
use crate::units::{Generation, Weight};

/// What both share: what the operator says of it, and what this process remembers.
struct Judge {
    capabilities: Capabilities,
    fence: Fence,
}

impl Judge {
    fn new(capabilities: Capabilities) -> Self {
        Self { capabilities, fence: Fence::default() }
    }

    /// Whether this may be asked for at all.
    fn admit(&self, split: &Split, generation: Generation) -> Result<(), (String, Outcome)> {
        let wrong = |what: String| Err((what, Outcome::Misconfigured));
        let sum: u32 = split.values().map(|weight| u32::from(weight.hundredths())).sum();
        if split.len() != 2 || sum != u32::from(Weight::FULL.hundredths()) {
            return wrong("needs two slots whose weights sum to 100 %".to_owned());
        }
        let steps = self.capabilities.steps;
        if split.values().any(|weight| !steps.show(*weight)) {
            let weights: Vec<_> = split.values().map(ToString::to_string).collect();
            return wrong(format!("{} do not fit: {}", weights.join(" and "), steps.says()));
        }
        let mirror = self.capabilities.mirror;
        if let Some(share) = split.copies.values().find(|share| !mirror.copies(**share)) {
            return wrong(format!("cannot copy {share} of the requests: {}", mirror.says()));
        }
        self.fence.admit(generation).map_err(|what| (what, Outcome::Superseded))
    }

    /// One that says that it keeps generations and shows a newer one was not changed.
    fn is_newer(&self, found: Option<Generation>, generation: Generation) -> bool {
        self.capabilities.fencing != Fencing::Process && found.is_some_and(|it| it > generation)
    }
}
