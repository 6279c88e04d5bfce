//! The past as a file of samples has it.

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::{Past, requests, share};
use crate::engine::evidence::Look;
use crate::engine::poll::RegionPoll;
use crate::ports::MetricsError;
use crate::sim::course::Stand;
use crate::spec::plan::Analysis;
use crate::units::{RegionName, Timestamp};

/// Looks in order of time. Which stage they were recorded in does not matter: the replayed policy has its own.
pub struct Sampled(Vec<Look>);

impl Sampled {
    /// Of these looks.
    #[must_use]
    pub fn new(looks: Vec<Look>) -> Self {
        Self(looks)
    }
}

#[async_trait]
impl Past for Sampled {
    fn next(&self, now: Timestamp) -> Option<Timestamp> {
        let next = self.0.partition_point(|look| look.poll.at <= now);
        self.0.get(next).map(|look| look.poll.at)
    }

    async fn look(
        &mut self,
        at: Timestamp,
        stands: &BTreeMap<RegionName, Stand>,
        analyses: &[Analysis],
    ) -> Result<BTreeMap<RegionName, RegionPoll>, MetricsError> {
        let found = self.0.binary_search_by_key(&at, |look| look.poll.at).ok();
        let regions = found.map(|index| &self.0[index].poll.regions);
        let own = |(name, look): (&RegionName, &RegionPoll)| {
            let stand = stands.get(name)?;
            let mut look = look.clone();
            look.measured.retain(|name, _| analyses.iter().any(|it| it.name == *name));
            look.weight = share(requests(look.measured.values()), stand.reach.weight);
            Some((name.clone(), look))
        };
        Ok(regions.into_iter().flatten().filter_map(own).collect())
    }

    fn begin(&mut self) {}
}
