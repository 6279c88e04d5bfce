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
use super::escalation::{Open, Pages, due};
use super::target::{Error, Waiting, deliver, wants};
use crate::ports::{Notice, Notifier};
use crate::spec::fleet::{Level, Notify};

/// Notices that may wait for one target; later ones are told to the log only.
const WAITING_MAX: usize = 10_000;
/// How often it is looked whose turn it is to be told.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Longest pause between two tries.
const RETRY_MAX: Duration = Duration::from_secs(300);

/// The targets of a fleet. Deliveries end with it, and go on with the next one on the same folder.
pub struct Outbox {
    queues: Vec<Queue>,
    escalation: Option<Escalating>,
}

/// Pages on their way up.
struct Escalating {
    levels: Arc<Vec<Level>>,
    pages: Pages,
    lines: BTreeMap<String, Arc<Line>>,
    /// A page came: nobody waits for the next look.
    nudge: Arc<Nudge>,
    task: JoinHandle<()>,
}

impl Drop for Escalating {
    fn drop(&mut self) {
        self.task.abort();
    }
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
    pub fn open(
        folder: &Path,
        targets: &BTreeMap<String, Notify>,
        levels: &[Level],
    ) -> io::Result<Self> {
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
        let lines = queues.iter().map(|queue| (queue.line.name.clone(), Arc::clone(&queue.line)));
        let escalation =
            (!levels.is_empty()).then(|| Escalating::start(folder, levels, lines.collect()));
        Ok(Self { queues, escalation })
    }
}

impl Escalating {
    fn start(folder: &Path, levels: &[Level], lines: BTreeMap<String, Arc<Line>>) -> Self {
        let (levels, pages) = (Arc::new(levels.to_vec()), Pages::of(folder));
        let nudge = Arc::new(Nudge::new());
        let own = (Arc::clone(&levels), pages.clone(), lines.clone(), Arc::clone(&nudge));
        let task = tokio::spawn(async move {
            let (levels, pages, lines, nudge) = own;
            loop {
                tell_due(&levels, &pages, &lines).await;
                let _ = tokio::time::timeout(LOOK_EVERY, nudge.notified()).await;
            }
        });
        Self { levels, pages, lines, nudge, task }
    }

    /// Whether a page reaches this target by its level.
    fn has(&self, name: &str) -> bool {
        let named = |level: &Level| {
            level.notify.iter().chain(level.regions.values().flatten()).any(|it| it == name)
        };
        self.levels.iter().any(named)
    }

    /// Opens a page; its first level is told even when it cannot be kept.
    async fn page(&self, notice: &Notice) {
        match self.pages.open(notice, now_ms()) {
            Ok(()) => self.nudge.notify_one(),
            Err(error) => {
                error!(%error, "a page cannot be kept: the first level is told, nobody later");
                let open = Open { notice: notice.clone(), at_ms: now_ms(), told: 0 };
                for (names, notice) in due(&self.levels, &open, open.at_ms) {
                    put_to(&self.lines, &names, &notice).await;
                }
            }
        }
    }
}

/// Tells every level that is due.
async fn tell_due(levels: &[Level], pages: &Pages, lines: &BTreeMap<String, Arc<Line>>) {
    let open = pages.list().unwrap_or_else(|error| {
        warn!(%error, "open pages cannot be read");
        Vec::new()
    });
    for mut page in open {
        for (names, notice) in due(levels, &page, now_ms()) {
            put_to(lines, &names, &notice).await;
            page.told += 1;
            if let Err(error) = pages.keep(&page) {
                warn!(%error, "how far a page has come is not kept");
            }
        }
    }
}

async fn put_to(lines: &BTreeMap<String, Arc<Line>>, names: &[String], notice: &Notice) {
    for line in names.iter().filter_map(|name| lines.get(name)) {
        put(line, notice).await;
    }
}

/// On disk for this target, or told at once where it cannot wait there.
async fn put(line: &Arc<Line>, notice: &Notice) {
    let one = Waiting::new(notice, now_ms() / 1_000);
    let (own, waiting) = (Arc::clone(line), one.clone());
    let put = tokio::task::spawn_blocking(move || own.put(&waiting)).await;
    if let Err(error) = put.unwrap_or_else(|error| Err(io::Error::other(error))) {
        error!(target = line.name, %error, "a notice cannot wait on disk");
        // Better told once and perhaps lost than not told.
        let line = Arc::clone(line);
        tokio::spawn(async move { deliver(&line.target, &one).await });
    }
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

#[async_trait]
impl Notifier for Outbox {
    async fn notify(&self, notice: &Notice) {
        Log.notify(notice).await;
        let by_level = |queue: &&Queue| {
            let escalation = self.escalation.as_ref().filter(|_| notice.page);
            escalation.is_some_and(|it| it.has(&queue.line.name))
        };
        if let Some(escalation) = self.escalation.as_ref().filter(|_| notice.page) {
            escalation.page(notice).await;
        }
        let wanted = self.queues.iter().filter(|it| wants(&it.line.target, notice.page));
        for queue in wanted.filter(|queue| !by_level(queue)) {
            put(&queue.line, notice).await;
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
            // One that is gone was delivered by the outbox before this one, on its way out.
            let removed = fs::remove_file(&path);
            if let Err(error) = removed
                && error.kind() != io::ErrorKind::NotFound
            {
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
