//! Places where a test lets the process die, panic or fail. Without the feature `fault-injection` nothing is there.
//!
//! Which of them does what is read once from the environment variable `FAILPOINTS`, for example
//! `before-intent=1*off->return` (the second intent is never recorded: the process is killed as by `kill -9`) or
//! `decide api-gateway-1=panic`.

#[cfg(feature = "fault-injection")]
mod armed {
    use std::fmt::Display;
    use std::io;

    /// Reads what each place does, for as long as it lives.
    #[must_use]
    pub fn arm() -> impl Sized {
        fail::FailScenario::setup()
    }

    /// `return` kills the process here, `panic` panics.
    pub fn at(place: &str) {
        fail::fail_point!(place, |_| die());
    }

    /// The same, for one rollout only.
    pub fn at_of(place: &str, of: &dyn Display) {
        at(&format!("{place} {of}"));
    }

    /// `return` is an error of the disk.
    pub fn on_disk(place: &str) -> io::Result<()> {
        fail::fail_point!(place, |_| Err(io::Error::other("input/output error")));
        Ok(())
    }

    fn die() {
        let own = rustix::process::getpid();
        // Nothing follows it.
        let _ = rustix::process::kill_process(own, rustix::process::Signal::KILL);
        loop {
            std::thread::park();
        }
    }
}

#[cfg(not(feature = "fault-injection"))]
mod disarmed {
    use std::fmt::Display;
    use std::io;

    /// Nothing to read.
    pub fn arm() {}

    /// Nothing happens here.
    pub fn at(_place: &str) {}

    /// Nothing happens here.
    pub fn at_of(_place: &str, _of: &dyn Display) {}

    /// Nothing happens here.
    pub fn on_disk(_place: &str) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(feature = "fault-injection")]
pub use armed::{arm, at, at_of, on_disk};
#[cfg(not(feature = "fault-injection"))]
pub use disarmed::{arm, at, at_of, on_disk};
