//! The loop: observe, judge, decide, record, act.

pub mod channels;
pub mod clock;
pub mod controller;
pub mod effects;
pub mod measure;
mod quarantine;
mod recorder;
pub mod retire;
pub mod service;
pub mod site;
pub mod supervisor;
mod task;
pub mod view;

use crate::ports::JournalError;
use crate::units::{Millis, RegionName, RolloutId, ServiceName, SlotName, Version};

/// Version of the statistics whose evidence a checkpoint holds; another one is not continued silently.
pub const STATISTICS: u32 = 1;

/// Why a rollout is not driven.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing is known of the service.
    #[error("no stable version of {0} is recorded")]
    NotAdopted(ServiceName),
    /// The fleet has no such service.
    #[error("the fleet has no service {0}")]
    NoSuchService(ServiceName),
    /// Two versions cannot be rolled out at once.
    #[error("{0} is under way")]
    Open(RolloutId),
    /// The version is stable already.
    #[error("{0} is the stable version already")]
    AlreadyStable(Version),
    /// Nothing of that name in the journal.
    #[error("there is no rollout {0}")]
    NoSuchRollout(RolloutId),
    /// The pipeline speaks of a region where the service was not adopted.
    #[error("{service} was not adopted in {region}")]
    RegionNotAdopted {
        /// The service.
        service: ServiceName,
        /// The region.
        region: RegionName,
    },
    /// Both slots have traffic.
    #[error("{region} splits its traffic: {found}")]
    SplitInProgress {
        /// Where.
        region: RegionName,
        /// What was read.
        found: String,
    },
    /// A region and its cohort share their slots, and a rollout moves both from one to the other.
    #[error(
        "{cohort} sends its users to {found}, and {region}, of whose traffic it is a slice, to {wanted}"
    )]
    CohortApart {
        /// The cohort.
        cohort: RegionName,
        /// Its region.
        region: RegionName,
        /// The slot that plays stable in the cohort.
        found: SlotName,
        /// The slot that plays stable in the region.
        wanted: SlotName,
    },
    /// A load balancer could not be read.
    #[error("{0}")]
    NotRead(String),
    /// Regions disagree on which slot is stable: harmless, but not for adoption without a word.
    #[error("weights of {0} are not settled: {1}")]
    NotSettled(RegionName, String),
    /// It is recorded, but a balancer does not take what it is served.
    #[error("{0} is recorded, but does not begin with it: {1}")]
    NotBegun(RegionName, String),
    /// The journal failed.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The evidence could not be written down.
    #[error("the evidence could not be written down: {0}")]
    Checkpoint(String),
    /// Something that must never be true would have become true; nothing was done.
    #[error("refused by an invariant: {0}")]
    Invariant(String),
    /// No version begins.
    #[error("{service} is frozen by {by}: {reason}")]
    Frozen {
        /// Which.
        service: ServiceName,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// The newest rollout was not rolled back.
    #[error("{0} has nothing to retry: its newest rollout was not rolled back")]
    NothingToRetry(ServiceName),
    /// Nothing was promoted lately whose previous version is still there.
    #[error("{0} has nothing to undo: {1}")]
    NothingToUndo(ServiceName, String),
    /// Nothing was promoted whose previous version could go.
    #[error("{0} has nothing to retire")]
    NothingToRetire(ServiceName),
    /// The way back is kept open for some time.
    #[error("the previous version is kept for {0} more")]
    Kept(Millis),
    /// It would take away what users reach.
    #[error("{0}: the previous slot still has traffic, or was not read: {1}")]
    StillUsed(RegionName, String),
    /// The hook said no, or nobody knows how it ended.
    #[error("{0}: hook retire: {1}")]
    NotRetired(RegionName, String),
    /// Nothing to release.
    #[error("{0} has no rollout in quarantine")]
    NotQuarantined(ServiceName),
    /// It went on without a record, as far as it may.
    #[error("it cannot be recorded: {0}")]
    NotRecorded(String),
}
