//! Notices on their way: on disk until they are delivered, in order, one queue per target.
//!
//! Delivered at least once: who receives one twice sees the same key.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use backon::BackoffBuilder;
use tokio::sync::Notify as Nudge;
use tokio::task::JoinHandle;
use tracing::{error, warn};

use super::Log;
use super::target::{Error, Waiting, deliver, wants};
use crate::ports::{Notice, Notifier};
use crate::spec::fleet::Notify;

/// Notices that may wait for one target; later ones are told to the log only.
const WAITING_MAX: usize = 10_000;
/// Longest pause between two tries.
const RETRY_MAX: Duration = Duration::from_secs(300);

/// The targets of a fleet. Deliveries end with it, and go on with the next one on the same folder.
pub struct Outbox {
    queues: Vec<Queue>,
}

struct Queue {
    line: Arc<Line>,
    task: JoinHandle<()>,
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Line {
    name: String,
    target: Notify,
    folder: PathBuf,
    next: AtomicU64,
    /// One writer at a time, so that their order is that of their names.
    writes: Mutex<()>,
    nudge: Nudge,
    empty: Nudge,
}

impl Outbox {
    /// Opens the queues below `folder`, and delivers what waits there.
    ///
    /// # Errors
    /// A folder cannot be made or read.
    pub fn open(folder: &Path, targets: &BTreeMap<String, Notify>) -> io::Result<Self> {
        let mut queues = Vec::new();
        for (name, target) in targets {
            let folder = folder.join(name);
            fs::create_dir_all(&folder)?;
            let newest = waiting(&folder)?.into_iter().next_back().map_or(0, |(number, _)| number);
            let line = Arc::new(Line {
                name: name.clone(),
                target: target.clone(),
                folder,
                next: AtomicU64::new(newest + 1),
                writes: Mutex::new(()),
                nudge: Nudge::new(),
                empty: Nudge::new(),
            });
            let own = Arc::clone(&line);
            queues.push(Queue { line, task: tokio::spawn(async move { own.deliver_all().await }) });
        }
        Ok(Self { queues })
    }
}

#[async_trait]
impl Notifier for Outbox {
    async fn notify(&self, notice: &Notice) {
        Log.notify(notice).await;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let one = Waiting::new(notice, now);
        for queue in self.queues.iter().filter(|it| wants(&it.line.target, notice.page)) {
            let (line, one) = (Arc::clone(&queue.line), one.clone());
            let put = tokio::task::spawn_blocking(move || line.put(&one)).await;
            if let Err(error) = put.unwrap_or_else(|error| Err(io::Error::other(error))) {
                error!(target = queue.line.name, %error, "a notice cannot wait on disk");
                // Better told once and perhaps lost than not told.
                let (line, one) = (Arc::clone(&queue.line), Waiting::new(notice, now));
                tokio::spawn(async move { deliver(&line.target, &one).await });
            }
        }
    }

    async fn drain(&self, longest: Duration) {
        let all = self.queues.iter().map(|queue| queue.line.is_drained());
        // What is left waits for the next process.
        let _ = tokio::time::timeout(longest, futures_util::future::join_all(all)).await;
    }
}

impl Line {
    /// On disk on return.
    fn put(&self, one: &Waiting) -> io::Result<()> {
        let _order = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting(&self.folder)?.len() >= WAITING_MAX {
            return Err(io::Error::other(format!("{WAITING_MAX} wait already")));
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (path, beside) = (self.path(number), self.folder.join("unfinished"));
        let mut file = File::create(&beside)?;
        file.write_all(&serde_json::to_vec(one)?)?;
        file.sync_all()?;
        fs::rename(&beside, &path)?;
        File::open(&self.folder)?.sync_all()?;
        self.nudge.notify_one();
        Ok(())
    }

    fn path(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{number:012}.json"))
    }

    async fn deliver_all(&self) {
        loop {
            let Some((_, path)) = waiting(&self.folder).ok().and_then(|all| all.into_iter().next())
            else {
                self.empty.notify_waiters();
                self.nudge.notified().await;
                continue;
            };
            self.deliver_one(&path).await;
            if let Err(error) = fs::remove_file(&path) {
                warn!(target = self.name, %error, "a delivered notice stays, and is delivered again");
                tokio::time::sleep(RETRY_MAX).await;
            }
        }
    }

    /// Tries until it is delivered or refused.
    async fn deliver_one(&self, path: &Path) {
        let read = fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let Some(one): Option<Waiting> = read else {
            return warn!(target = self.name, path = %path.display(), "a notice cannot be read");
        };
        let mut delays = backon::ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(200))
            .with_max_delay(RETRY_MAX)
            .without_max_times()
            .with_jitter()
            .build();
        loop {
            match deliver(&self.target, &one).await {
                Ok(()) => return,
                Err(Error::Refused(what)) => {
                    return error!(target = self.name, key = one.key, what, "a notice was refused");
                }
                Err(Error::Later(what)) => {
                    warn!(target = self.name, key = one.key, what, "a notice waits");
                    tokio::time::sleep(delays.next().unwrap_or(RETRY_MAX)).await;
                }
            }
        }
    }

    async fn is_drained(&self) {
        loop {
            let empty = self.empty.notified();
            if waiting(&self.folder).is_ok_and(|all| all.is_empty()) {
                return;
            }
            empty.await;
        }
    }
}

/// What waits in a folder, the oldest first.
fn waiting(folder: &Path) -> io::Result<BTreeMap<u64, PathBuf>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if let Some(number) = name.and_then(|name| name.strip_suffix(".json")?.parse().ok()) {
            all.insert(number, path);
        }
    }
    Ok(all)
}
