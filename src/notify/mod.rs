//! Telling people: the log, and the targets that the fleet names, by an outbox that outlives this process.

mod email;
pub mod escalation;
mod outbox;
pub mod target;

pub use outbox::Outbox;

use async_trait::async_trait;
use tracing::{error, info};

use crate::ports::{Notice, Notifier};

/// Writes every notice to the log; a page as an error, because somebody has to act.
#[derive(Debug, Default)]
pub struct Log;

#[async_trait]
impl Notifier for Log {
    async fn notify(&self, notice: &Notice) {
        if notice.page {
            error!(key = notice.key, "{}", notice.text);
        } else {
            info!(key = notice.key, "{}", notice.text);
        }
    }
}
