//! A rollout driven in the foreground: connect, start or take up, follow, and say how it ended.

use std::path::Path;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::connect::Connection;
use super::exit::Exit;
use super::failure::{Failure, chain};
use super::follow::{Stop, follow};
use super::output::Format;
use crate::access::audit::Auditor;
use crate::driver;
use crate::driver::controller::{Rollouts, Single};
use crate::driver::site::Site;
use crate::driver::supervisor::Driver;
use crate::engine::rollout::{Phase, Rollout};
use crate::server::{self, Api};
use crate::units::RolloutId;

/// How a session goes about it.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// Form of what is written while it goes on.
    pub format: Format,
    /// A person is there to be asked; without one, a rollout that waits for a person ends the session.
    pub attended: bool,
}

/// Drives a rollout of a connected service, and signs what that left in the audit.
pub async fn drive(
    connection: &Connection,
    id: &RolloutId,
    manner: Manner,
) -> Result<(Exit, Rollout), Failure> {
    let audit = Arc::clone(&connection.audit) as Arc<dyn Auditor>;
    let site = Arc::clone(&connection.site);
    let ended = drive_to_end(site, &connection.state_dir, id, manner, audit).await;
    connection.audit.sign();
    ended
}

/// Drives one rollout until it ends, or has to wait for a person who is not there, or is interrupted.
pub async fn drive_to_end(
    site: Arc<Site>,
    state_dir: &Path,
    id: &RolloutId,
    manner: Manner,
    audit: Arc<dyn Auditor>,
) -> Result<(Exit, Rollout), Failure> {
    let (driver, handle) = Driver::resume(Arc::clone(&site), id).await?;
    let clock = Arc::clone(&site.clock);
    let single: Arc<dyn Rollouts> = Arc::new(Single { handle: handle.clone(), site });
    let (_current, rollouts) = watch::channel(single);
    let state = state_dir.to_owned();
    let api = Api::new(server::Parts { state, rollouts, audit, clock });
    let served = server::serve(state_dir, &api).map_err(|error| Failure::new(chain(&error)))?;
    let views = handle.views();
    let mut driving = Box::pin(driver.drive());
    let interrupted = interrupted();
    let outcome = tokio::select! {
        stop = follow(&handle, manner.format, manner.attended) => match stop {
            Stop::Over => driven((&mut driving).await),
            Stop::Waits => {
                let state = views.borrow().rollout.clone();
                Ok((waiting(&state), state))
            }
        },
        state = &mut driving => driven(state),
        number = interrupted => {
            let state = views.borrow().rollout.clone();
            Ok((Exit::Signal(number), state))
        }
    };
    // The driver is a task of its own and goes on meanwhile: whoever has asked already gets an answer.
    served.close().await;
    outcome
}

fn driven(end: Result<Rollout, driver::Error>) -> Result<(Exit, Rollout), Failure> {
    end.map(|state| (ended(&state), state)).map_err(Failure::from)
}

fn ended(state: &Rollout) -> Exit {
    match state.phase {
        Phase::RolledBack => Exit::RolledBack,
        _ => Exit::Done,
    }
}

fn waiting(state: &Rollout) -> Exit {
    if state.undecided { Exit::Undecided } else { Exit::Waiting }
}

/// The number of the signal that asks this process to end.
pub async fn interrupted() -> u8 {
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => 2,
        _ = terminate.recv() => 15,
    }
}
