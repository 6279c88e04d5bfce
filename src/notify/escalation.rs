//! Pages that nobody acknowledges go further: from the region's people to those of the platform, and on.
//!
//! What is open stands on disk, one file per page, so that it outlives this process and can be acknowledged beside it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::ports::Notice;
use crate::spec::fleet::Level;

/// Pages that may be open; later ones go to the first level only.
const OPEN_MAX: usize = 1_000;

/// A page that somebody has to acknowledge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// What it is about.
    pub notice: Notice,
    /// When it was told first, in milliseconds since 1970.
    pub at_ms: u64,
    /// Levels that were told.
    pub told: usize,
}

/// The pages that are open below a folder.
#[derive(Debug, Clone)]
pub struct Pages {
    folder: PathBuf,
}

impl Pages {
    /// Below the outbox of a state directory.
    #[must_use]
    pub fn of(outbox: &Path) -> Self {
        Self { folder: outbox.join("open-pages") }
    }

    fn path(&self, key: &str) -> PathBuf {
        let digest: String =
            Sha256::digest(key.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        self.folder.join(format!("{digest}.json"))
    }

    /// All that are open, the oldest first.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn list(&self) -> io::Result<Vec<Open>> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut all: Vec<Open> = Vec::new();
        for entry in entries {
            // One may be acknowledged meanwhile.
            let Ok(bytes) = fs::read(entry?.path()) else { continue };
            all.extend(serde_json::from_slice::<Open>(&bytes).ok());
        }
        all.sort_by(|one, other| {
            (one.at_ms, &one.notice.key).cmp(&(other.at_ms, &other.notice.key))
        });
        Ok(all)
    }

    /// Somebody has it in hand. False where it is not open.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn acknowledge(&self, key: &str) -> io::Result<bool> {
        match fs::remove_file(self.path(key)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Keeps a page, unless it is open already. An error when too many are.
    pub(super) fn open(&self, notice: &Notice, at_ms: u64) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        if self.path(&notice.key).exists() {
            return Ok(());
        }
        if self.list()?.len() >= OPEN_MAX {
            return Err(io::Error::other(format!("{OPEN_MAX} pages are open already")));
        }
        self.write(&Open { notice: notice.clone(), at_ms, told: 0 })
    }

    /// Keeps how far a page has come, unless it was acknowledged meanwhile.
    pub(super) fn keep(&self, page: &Open) -> io::Result<()> {
        if self.path(&page.notice.key).exists() { self.write(page) } else { Ok(()) }
    }

    fn write(&self, page: &Open) -> io::Result<()> {
        let path = self.path(&page.notice.key);
        let beside = path.with_extension("new");
        fs::write(&beside, serde_json::to_vec(page)?)?;
        fs::rename(beside, path)
    }
}

/// Who is to be told of a page at `now_ms`: by level, the names of targets and the notice as they see it.
pub(super) fn due(levels: &[Level], page: &Open, now_ms: u64) -> Vec<(Vec<String>, Notice)> {
    let due = |level: &&Level| now_ms.saturating_sub(page.at_ms) >= level.after.0;
    let levels = levels.iter().enumerate().skip(page.told).take_while(|(_, level)| due(level));
    let told = |(number, level): (usize, &Level)| {
        let notice = Notice {
            key: format!("{}/level-{}", page.notice.key, number + 1),
            text: format!("[level {}, {}] {}", number + 1, level.name, page.notice.text),
            ..page.notice.clone()
        };
        (targets(level, &page.notice), notice)
    };
    levels.map(told).collect()
}

/// The region's own people where it has some; everybody of the level otherwise.
fn targets(level: &Level, notice: &Notice) -> Vec<String> {
    let mut names: Vec<_> =
        notice.regions.iter().filter_map(|region| level.regions.get(region)).flatten().collect();
    let all_have = notice.regions.iter().all(|region| level.regions.contains_key(region));
    if names.is_empty() || !all_have {
        names.extend(&level.notify);
    }
    names.sort();
    names.dedup();
    names.into_iter().cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Millis;

    fn levels() -> Vec<Level> {
        let level = |name: &str, minutes: u64, notify: &[&str]| Level {
            name: name.to_owned(),
            after: Millis::from_secs(60 * minutes),
            notify: notify.iter().map(|name| (*name).to_owned()).collect(),
            regions: std::collections::BTreeMap::new(),
        };
        let mut first = level("regional_operations", 0, &["ops"]);
        first.regions = [("eu".parse().unwrap(), vec!["ops-eu".to_owned()])].into();
        vec![first, level("global_platform", 5, &["platform"]), level("crisis", 30, &["all"])]
    }

    fn page(regions: &[&str]) -> Open {
        let mut notice = Notice::new("k".to_owned(), true, "rolling back".to_owned());
        notice.regions = regions.iter().map(|name| name.parse().unwrap()).collect();
        Open { notice, at_ms: 1_000_000, told: 0 }
    }

    #[test]
    fn each_level_is_told_once_its_time_has_come() {
        let (levels, mut page) = (levels(), page(&["us"]));
        let names = |page: &Open, minutes: u64| -> Vec<String> {
            due(&levels, page, page.at_ms + 60_000 * minutes)
                .into_iter()
                .flat_map(|it| it.0)
                .collect()
        };
        assert_eq!(names(&page, 0), ["ops"]);
        page.told = 1;
        assert_eq!(names(&page, 4), Vec::<String>::new());
        assert_eq!(names(&page, 5), ["platform"]);
        // Away for an hour: all that are due are told.
        assert_eq!(names(&page, 60), ["platform", "all"]);
        let (_, notice) = due(&levels, &page, page.at_ms + 300_000).remove(0);
        assert_eq!(notice.text, "[level 2, global_platform] rolling back");
        assert_eq!(notice.key, "k/level-2");
    }

    #[test]
    fn a_regions_own_people_are_told_first() {
        let levels = levels();
        let names = |regions: &[&str]| due(&levels, &page(regions), 1_000_000).remove(0).0;
        assert_eq!(names(&["eu"]), ["ops-eu"]);
        assert_eq!(names(&["eu", "us"]), ["ops", "ops-eu"]);
        assert_eq!(names(&[]), ["ops"]);
    }

    #[test]
    fn what_is_open_outlives_the_process_until_it_is_acknowledged() {
        let folder = tempfile::tempdir().unwrap();
        let pages = Pages::of(folder.path());
        assert_eq!(pages.list().unwrap(), []);
        let one = Open { at_ms: 5, told: 2, ..page(&[]) };
        pages.open(&one.notice, 5).unwrap();
        pages.keep(&one).unwrap();
        // The same again does not begin anew.
        pages.open(&one.notice, 9).unwrap();
        assert_eq!(Pages::of(folder.path()).list().unwrap(), std::slice::from_ref(&one));
        assert!(pages.acknowledge("k").unwrap() && !pages.acknowledge("k").unwrap());
        pages.keep(&one).unwrap();
        assert_eq!(pages.list().unwrap(), []);
    }

    #[test]
    fn a_page_too_many_is_an_error_and_no_other_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let pages = Pages::of(folder.path());
        let mut notice = page(&[]).notice;
        for number in 0..OPEN_MAX {
            notice.key = number.to_string();
            // Listing all of them each time would be most of the test.
            fs::create_dir_all(&pages.folder).unwrap();
            pages.write(&Open { notice: notice.clone(), at_ms: 1, told: 0 }).unwrap();
        }
        pages.open(&notice, 2).unwrap();
        notice.key = "more".to_owned();
        assert!(pages.open(&notice, 2).unwrap_err().to_string().contains("open already"));
        assert_eq!(pages.list().unwrap().len(), OPEN_MAX);
    }
}
