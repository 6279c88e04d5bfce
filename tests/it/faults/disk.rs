//! Disks that are full, read-only or lie, and states from another day.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::{RESUME, baking, count, events};
use crate::binary_xds::process::{Ended, Running, call};
use crate::binary_xds::story::{ADOPT, assert_recorded_first, fleet, run};

/// A file system of a size of its own; gone with this value, also when the test panics.
struct Tmpfs(PathBuf);

impl Tmpfs {
    /// None where this machine does not let us mount anything: then the faults are injected.
    fn mount(folder: &Path, mebibytes: u32) -> Option<Self> {
        std::fs::create_dir_all(folder).unwrap();
        let size = format!("size={mebibytes}m,mode=0700");
        mount(&["-t", "tmpfs", "-o", &size, "tmpfs"], folder).then(|| Self(folder.to_owned()))
    }

    fn read_only(&self) {
        assert!(mount(&["-o", "remount,ro"], &self.0));
    }

    /// Fills it to the last byte; the file that does.
    fn fill(&self) -> PathBuf {
        let ballast = self.0.join("ballast");
        let mut file = std::fs::File::create(&ballast).unwrap();
        let zeros = vec![0; 64 * 1024];
        loop {
            use std::io::Write;
            match file.write_all(&zeros) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => return ballast,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
        assert!(unmounted.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

fn mount(arguments: &[&str], folder: &Path) -> bool {
    if std::env::var_os("TIDEGATE_NO_MOUNTS").is_some() {
        return false;
    }
    let done = Command::new("mount").args(arguments).arg(folder).output();
    let mounted = done.as_ref().is_ok_and(|done| done.status.success());
    if !mounted {
        println!("nothing can be mounted here, so the fault is injected: {done:?}");
    }
    mounted
}

/// Uses up what is left of the journal's last block, until not even the shortest fact fits; the last refusal.
fn fill_last_block(folder: &Path) -> Ended {
    for length in [500, 250, 100, 20, 1].into_iter().chain(std::iter::repeat_n(1, 40)) {
        let reason = "x".repeat(length);
        let paused = call(folder, &["pause", "--reason", &reason]);
        if paused.code == Some(0) {
            let resumed = call(folder, &["resume"]);
            if resumed.code != Some(0) {
                return resumed;
            }
        } else if length == 1 {
            return paused;
        }
    }
    panic!("the disk takes everything")
}

fn says(view: &Value, reason: &str) -> bool {
    view["why"].as_array().is_some_and(|why| why.iter().any(|it| it.get(reason).is_some()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_16_on_a_full_disk_nothing_is_raised_and_the_way_back_is_open() {
    let fleet = fleet().await;
    let folder = fleet.folder();
    std::fs::remove_dir_all(folder.join("state")).unwrap();
    let disk = Tmpfs::mount(&folder.join("state"), 96);
    call(folder, &ADOPT).expect(0);
    let stay = [&run("pipelines/long.yaml", "v2")[..], &["--stay"]].concat();
    let injected = if disk.is_some() { "" } else { "journal-write=25*off->return" };
    let mut running = Running::start_failing(folder, &stay, injected);
    running.until_baking(0);
    let ballast = disk.as_ref().map(Tmpfs::fill);
    running.until("it says so", 60, |view| says(view, "not_recorded"));
    let refused = fill_last_block(folder).expect(1);
    assert!(refused.errors.contains("cannot be recorded"), "{refused:?}");
    assert_eq!(fleet.green().await, [Some(25.0), Some(25.0)]);

    // Back without a record, and it says that there is none.
    call(folder, &["rollback", "--reason", "full"]).expect(0);
    let ended = running.ended(20).expect(1);
    assert!(ended.errors.contains("cannot be recorded"), "{ended:?}");
    assert_eq!(fleet.green().await, [Some(0.0), Some(0.0)]);

    ballast.into_iter().for_each(|ballast| std::fs::remove_file(ballast).unwrap());
    let adopting = Running::start(folder, &["run", "--resume", "api-gateway", "--stay"]);
    adopting.until_said("staying");
    assert_eq!(fleet.green().await, [Some(0.0), Some(0.0)]);
    adopting.terminate().expect(5);
    assert_eq!(count(&events(&fleet), "rolled_back"), 1);
    call(folder, &["store", "verify"]).expect(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_16_below_the_floor_of_free_space_no_rollout_starts() {
    let fleet = fleet().await;
    let folder = fleet.folder();
    std::fs::remove_dir_all(folder.join("state")).unwrap();
    let disk = Tmpfs::mount(&folder.join("state"), 48);
    call(folder, &ADOPT).expect(0);
    let injected = if disk.is_some() { "" } else { "free-space=return" };
    let arguments = run("pipelines/long.yaml", "v2");
    let refused = Running::start_failing(folder, &arguments, injected).ended(20).expect(1);
    assert!(refused.errors.contains("MiB are free on the disk"), "{refused:?}");
    assert_eq!(count(&events(&fleet), "started"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_17_a_failed_sync_ends_the_process_and_the_next_one_reads_what_is_there() {
    let fleet = fleet().await;
    let folder = fleet.folder();
    let arguments = run("pipelines/long.yaml", "v2");
    let failing = Running::start_failing(folder, &arguments, "journal-sync=9*off->return");
    let aborted = failing.ended(60);
    assert_eq!(aborted.code, None, "{aborted:?}");
    assert!(aborted.errors.contains("unknown what is on disk"), "{aborted:?}");
    call(folder, &["store", "verify"]).expect(0);
    let mut next = Running::start(folder, &RESUME);
    next.until_baking(0);
    call(folder, &["rollback", "--reason", "enough"]).expect(0);
    next.ended(20).expect(5);
    assert_eq!(count(&events(&fleet), "step_entered"), 1);
    assert_recorded_first(&fleet);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_18_a_read_only_state_directory_is_named_and_traffic_stays() {
    let fleet = fleet().await;
    let folder = fleet.folder();
    std::fs::remove_dir_all(folder.join("state")).unwrap();
    let disk = Tmpfs::mount(&folder.join("state"), 96);
    call(folder, &ADOPT).expect(0);
    baking(&fleet).kill();
    disk.iter().for_each(Tmpfs::read_only);
    let injected = if disk.is_some() { "" } else { "journal-open=return" };
    let refused = Running::start_failing(folder, &RESUME, injected).ended(20).expect(1);
    assert!(refused.errors.contains("state"), "{refused:?}");
    let said = if disk.is_some() { "ead-only file system" } else { "input/output error" };
    assert!(refused.errors.contains(said), "{refused:?}");
    assert_eq!(fleet.green().await, [Some(25.0), Some(25.0)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_19_a_state_of_yesterday_meets_newer_weights_and_asks() {
    let fleet = fleet().await;
    let folder = fleet.folder();
    let mut running = baking(&fleet);
    call(folder, &["backup", "yesterday"]).expect(0);
    call(folder, &["promote", "--reason", "on"]).expect(0);
    running.until_baking(1);
    running.kill();
    assert_eq!(fleet.green().await, [Some(100.0), Some(100.0)]);

    std::fs::remove_dir_all(folder.join("state")).unwrap();
    call(folder, &["restore", "yesterday"]).expect(0);
    let mut restored = Running::start(folder, &["run", "--resume", "api-gateway", "--stay"]);
    let view = restored.until("it holds", 30, |view| !view["rollout"]["paused"].is_null());
    assert!(says(&view, "drifted"), "{view}");
    assert_eq!(fleet.green().await, [Some(100.0), Some(100.0)], "nothing is set by an old state");
    restored.kill();
}
