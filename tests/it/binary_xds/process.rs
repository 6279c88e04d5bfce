//! Calls of the binary: one that ends, and one that goes on beside the test.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// What a call left behind.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub out: String,
    pub errors: String,
}

impl Ended {
    /// Its standard output as one JSON document.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Asserts the exit code.
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }
}

/// Calls the binary in `folder` and waits for its end, however long it takes (60 s at most).
pub fn call(folder: &Path, arguments: &[&str]) -> Ended {
    Running::start(folder, arguments).ended(60)
}

/// The binary under way; killed with this value.
pub struct Running {
    child: Child,
    folder: PathBuf,
    // Files rather than pipes: nobody has to read while it runs.
    out: tempfile::NamedTempFile,
    errors: tempfile::NamedTempFile,
}

impl Running {
    pub fn start(folder: &Path, arguments: &[&str]) -> Self {
        Self::start_failing(folder, arguments, "")
    }

    /// The same with places that fail, as the variable `FAILPOINTS` says it.
    pub fn start_failing(folder: &Path, arguments: &[&str], places: &str) -> Self {
        let (out, errors) =
            (tempfile::NamedTempFile::new().unwrap(), tempfile::NamedTempFile::new().unwrap());
        let child = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args(arguments)
            .current_dir(folder)
            .env("USER", "ada")
            .env("FAILPOINTS", places)
            .env_remove("TIDEGATE_FLEET")
            .env_remove("TIDEGATE_STATE")
            .stdin(Stdio::null())
            .stdout(out.reopen().unwrap())
            .stderr(errors.reopen().unwrap())
            .spawn()
            .unwrap();
        Self { child, folder: folder.to_owned(), out, errors }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end.
    pub fn ended(mut self, seconds: u64) -> Ended {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return self.left(status.code());
            }
            assert!(
                Instant::now() < deadline,
                "still runs after {seconds} s: {:?}",
                self.left(None)
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// `kill -9`.
    pub fn kill(mut self) -> Ended {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.left(None)
    }

    /// Asks it to end, as a CI job that is cancelled does.
    pub fn terminate(self) -> Ended {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.ended(10)
    }

    /// Waits until `tidegate status` shows what is wanted.
    pub fn until(&mut self, what: &str, seconds: u64, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        loop {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "{what}: it ended: {:?}", self.left(ended.unwrap().code()));
            let status = call(&self.folder, &["status", "-o", "json"]);
            let view = serde_json::from_str::<Value>(&status.out).unwrap_or_default();
            if view["running"] == true && wanted(&view) {
                return view;
            }
            let late = Instant::now() >= deadline;
            assert!(!late, "never within {seconds} s: {what}; {status:?} {:?}", self.left(None));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until the weights of a stage (from 0) are confirmed and bake.
    pub fn until_baking(&mut self, stage: u64) -> Value {
        let baking = |view: &Value| {
            view["rollout"]["phase"] == "baking" && view["rollout"]["stage"] == stage
        };
        self.until(&format!("stage {stage} bakes"), 30, baking)
    }

    /// Waits until it has written `text` to standard error.
    pub fn until_said(&self, text: &str) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !std::fs::read_to_string(self.errors.path()).unwrap().contains(text) {
            assert!(Instant::now() < deadline, "never said: {text}; {:?}", self.left(None));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn left(&self, code: Option<i32>) -> Ended {
        let read = |file: &tempfile::NamedTempFile| std::fs::read_to_string(file.path()).unwrap();
        Ended { code, out: read(&self.out), errors: read(&self.errors) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
