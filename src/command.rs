//! The operator's own programs: run without a shell, bounded in time and output, gone with their children.

use std::process::{ExitStatus, Stdio};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
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
    /// It says more than anybody reads.
    #[error("the command says more than {OUTPUT_BYTES_MAX} bytes")]
    TooLong,
    /// Its end could not be awaited.
    #[error("the command broke off: {0}")]
    Broken(std::io::ErrorKind),
}

impl Error {
    /// A person has to change something; and nothing has run.
    #[must_use]
    pub fn is_wrong(&self) -> bool {
        !matches!(self, Self::Late(_) | Self::Broken(_) | Self::TooLong)
    }
}

/// What a program said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Its exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// Its output, whole: longer than 64 KiB is an error.
    pub output: Vec<u8>,
    /// The first line of its errors, or how it ended; safe to show.
    pub detail: String,
}

/// Runs a program with nothing in its environment but `PATH`; each of `values` takes the place of whole arguments.
///
/// When this is dropped, the program and its children are killed.
pub async fn run(
    arguments: &[String],
    values: &[(&str, &str)],
    timeout: Millis,
) -> Result<Ended, Error> {
    let arguments: Vec<_> =
        arguments.iter().map(|text| argument(text, values)).collect::<Result<_, _>>()?;
    let group = Group::spawn(&arguments, Stdio::null())?;
    let (status, out, err) = group.finish(&[], timeout).await?;
    let text = if first_line(&out).is_empty() { first_line(&err) } else { first_line(&out) };
    let detail = if text.is_empty() { how(status) } else { text };
    Ok(Ended { success: status.success(), detail })
}

/// Runs a program as [`run`] does, gives it `input`, and returns what it said.
pub async fn ask(arguments: &[String], input: &[u8], timeout: Millis) -> Result<Said, Error> {
    let group = Group::spawn(arguments, Stdio::piped())?;
    let (status, output, err) = group.finish(input, timeout).await?;
    if output.len() > OUTPUT_BYTES_MAX {
        return Err(Error::TooLong);
    }
    let line = first_line(&err);
    let detail = if line.is_empty() { how(status) } else { line };
    Ok(Said { code: status.code(), output, detail })
}

fn how(status: ExitStatus) -> String {
    match status.code() {
        Some(code) => format!("exit code {code}"),
        None => "ended by a signal".to_owned(),
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
    fn spawn(arguments: &[String], input: Stdio) -> Result<Self, Error> {
        let (program, rest) = arguments.split_first().ok_or(Error::Empty)?;
        let mut command = Command::new(program);
        command
            .args(rest)
            .env_clear()
            .stdin(input)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        let child = command.spawn().map_err(|error| Error::NotStarted(error.kind()))?;
        Ok(Self { id: child.id(), child })
    }

    async fn finish(
        mut self,
        input: &[u8],
        timeout: Millis,
    ) -> Result<(ExitStatus, Vec<u8>, Vec<u8>), Error> {
        let (stdin, stdout, stderr) =
            (self.child.stdin.take(), self.child.stdout.take(), self.child.stderr.take());
        let all = async {
            let (status, (), out, err) = tokio::join!(
                self.child.wait(),
                given(stdin, input),
                drained(stdout),
                drained(stderr)
            );
            status.map(|status| (status, out, err))
        };
        match tokio::time::timeout(timeout.duration(), all).await {
            Ok(ended) => ended.map_err(|error| Error::Broken(error.kind())),
            Err(_) => Err(Error::Late(timeout)),
        }
    }
}

/// Writes all of it; a program that does not read to the end says by its own end what it thinks.
async fn given(pipe: Option<impl AsyncWrite + Unpin>, input: &[u8]) {
    if let Some(mut pipe) = pipe {
        let _ = pipe.write_all(input).await;
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
        // One more than anybody looks at tells that there was more.
        let room = (OUTPUT_BYTES_MAX + 1).saturating_sub(kept.len());
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
