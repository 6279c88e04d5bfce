//! The operator's own programs: run without a shell, bounded in time and output, gone with their children.

use std::process::Stdio;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

use crate::units::{Millis, shown};

/// Most bytes of output that are looked at.
const OUTPUT_BYTES_MAX: usize = 64 * 1024;
/// Most characters of it that are shown.
const LINE_LENGTH_MAX: usize = 200;

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// With exit code 0.
    pub success: bool,
    /// The first line that it said, or how it ended; safe to show.
    pub detail: String,
}

/// Why it is not known how it ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is nothing to run.
    #[error("the command is empty")]
    Empty,
    /// A value would become an option.
    #[error("the value of {0} starts with `-` and would be an option")]
    Option(String),
    /// A value stands inside an argument.
    #[error("{0} must be an argument of its own")]
    Inside(String),
    /// It cannot be started.
    #[error("the command cannot be started: {0}")]
    NotStarted(std::io::ErrorKind),
    /// It was killed: it took too long.
    #[error("no end within {0}")]
    Late(Millis),
    /// Its end could not be awaited.
    #[error("the command broke off: {0}")]
    Broken(std::io::ErrorKind),
}

impl Error {
    /// A person has to change something; and nothing has run.
    #[must_use]
    pub fn is_wrong(&self) -> bool {
        !matches!(self, Self::Late(_) | Self::Broken(_))
    }
}

/// Runs a program with nothing in its environment but `PATH`; each of `values` takes the place of whole arguments.
///
/// When this is dropped, the program and its children are killed.
pub async fn run(
    arguments: &[String],
    values: &[(&str, &str)],
    timeout: Millis,
) -> Result<Ended, Error> {
    let (program, rest) = arguments.split_first().ok_or(Error::Empty)?;
    let rest = rest.iter().map(|text| argument(text, values)).collect::<Result<Vec<_>, _>>()?;
    let mut command = Command::new(program);
    command
        .args(rest)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    let child = command.spawn().map_err(|error| Error::NotStarted(error.kind()))?;
    let mut group = Group { id: child.id(), child };
    match tokio::time::timeout(timeout.duration(), group.finish()).await {
        Ok(ended) => ended.map_err(|error| Error::Broken(error.kind())),
        Err(_) => Err(Error::Late(timeout)),
    }
}

/// A value takes the place of a whole argument only, and never becomes an option.
fn argument(text: &str, values: &[(&str, &str)]) -> Result<String, Error> {
    for (name, value) in values {
        if text == *name && value.starts_with('-') {
            return Err(Error::Option((*name).to_owned()));
        }
        if text == *name {
            return Ok((*value).to_owned());
        }
        if text.contains(name) {
            return Err(Error::Inside((*name).to_owned()));
        }
    }
    Ok(text.to_owned())
}

/// A child and its descendants: all of them are gone when this is.
struct Group {
    id: Option<u32>,
    child: Child,
}

impl Group {
    async fn finish(&mut self) -> std::io::Result<Ended> {
        let (stdout, stderr) = (self.child.stdout.take(), self.child.stderr.take());
        let (status, out, err) = tokio::join!(self.child.wait(), drained(stdout), drained(stderr));
        let status = status?;
        let text = if first_line(&out).is_empty() { first_line(&err) } else { first_line(&out) };
        let how = || match status.code() {
            Some(code) => format!("exit code {code}"),
            None => "ended by a signal".to_owned(),
        };
        let detail = if text.is_empty() { how() } else { text };
        Ok(Ended { success: status.success(), detail })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let id =
            self.id.and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
        if let Some(id) = id {
            // The group may already be gone.
            let _ = rustix::process::kill_process_group(id, rustix::process::Signal::KILL);
        }
    }
}

/// The first bytes; the rest is read and dropped, so that the child does not hang on a full pipe.
async fn drained(pipe: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let Some(mut pipe) = pipe else { return Vec::new() };
    let mut kept = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(length @ 1..) = pipe.read(&mut piece).await {
        let room = OUTPUT_BYTES_MAX.saturating_sub(kept.len());
        kept.extend_from_slice(&piece[..length.min(room)]);
    }
    kept
}

/// The first line that says something, shortened and made safe to show.
#[must_use]
pub fn first_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let line: Vec<char> = text
        .lines()
        .map(str::trim)
        .find(|line| !line.is_empty())
        .unwrap_or_default()
        .chars()
        .collect();
    let cut = &line[..line.len().min(LINE_LENGTH_MAX)];
    // `shown` takes 80 characters at a time.
    let safe: String = cut.chunks(80).map(|part| shown(&part.iter().collect::<String>())).collect();
    safe.chars().take(LINE_LENGTH_MAX).collect()
}
