//! Asks the checks that the operator defines in the fleet: HTTP and commands.

use std::collections::BTreeMap;
use std::process::Stdio;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

use super::http;
use crate::ports::{CheckAnswer, Checker, MetricsError, Subject};
use crate::spec::fleet::{Auth, FleetCheck};
use crate::units::{Millis, shown};

/// Most bytes of an answer that are looked at.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;
/// Most characters of an answer that are shown.
const DETAIL_LENGTH_MAX: usize = 200;

/// The checks of one fleet.
pub struct Checks {
    checks: BTreeMap<String, FleetCheck>,
}

impl Checks {
    /// Takes the fleet's checks as they are; what is wrong with one is said when it is asked.
    #[must_use]
    pub fn new(checks: BTreeMap<String, FleetCheck>) -> Self {
        Self { checks }
    }
}

#[async_trait]
impl Checker for Checks {
    async fn check(
        &self,
        name: &str,
        subject: &Subject,
        timeout: Millis,
    ) -> Result<CheckAnswer, MetricsError> {
        let wrong = |(what, misconfigured): (String, bool)| MetricsError {
            source_name: format!("check {}", shown(name)),
            what,
            misconfigured,
        };
        match self.checks.get(name) {
            None => Err(wrong(("the fleet has no such check".to_owned(), true))),
            Some(FleetCheck::Http { url, auth }) => {
                ask_http(url, auth.as_ref(), subject, timeout).await.map_err(wrong)
            }
            Some(FleetCheck::Command(arguments)) => {
                run(arguments, subject, timeout).await.map_err(wrong)
            }
        }
    }
}

type Failure = (String, bool);

fn values(subject: &Subject) -> [(&'static str, &str); 3] {
    [
        ("{region}", subject.region.as_str()),
        ("{service}", subject.service.as_str()),
        ("{version}", subject.version.as_str()),
    ]
}

async fn ask_http(
    url: &str,
    auth: Option<&Auth>,
    subject: &Subject,
    timeout: Millis,
) -> Result<CheckAnswer, Failure> {
    let said = |error: http::Error| {
        use http::Error::{Authority, Secret, Url};
        let misconfigured = matches!(error, Url | Secret { .. } | Authority { .. });
        (error.to_string(), misconfigured)
    };
    // As a segment of a path these would walk up, even percent-encoded.
    if matches!(subject.version.as_str(), "." | "..") {
        return Err(("a version of dots alone cannot stand in a URL".to_owned(), true));
    }
    let url = filled(url, subject);
    let client = http::client(&url, timeout, None).map_err(said)?;
    let request = http::with_auth(client.get(&url), auth).map_err(said)?;
    let response = request.send().await.map_err(|error| said(error.into()))?;
    let status = response.status();
    let body = http::body(response, ANSWER_BYTES_MAX).await.map_err(said)?;
    // The body of anything but a success is not shown: it may be a login page or repeat the request.
    let text = if status.is_success() { detail(&body) } else { String::new() };
    let shown = if text.is_empty() { format!("HTTP {status}") } else { text };
    Ok(CheckAnswer { held: status.is_success(), detail: shown })
}

/// The URL with its placeholders replaced in one pass, every byte beyond letters, digits and `-._~` percent-encoded.
fn filled(template: &str, subject: &Subject) -> String {
    let mut url = String::new();
    let mut rest = template;
    while let Some(start) = rest.find('{') {
        url.push_str(&rest[..start]);
        rest = &rest[start..];
        match values(subject).into_iter().find(|(name, _)| rest.starts_with(name)) {
            Some((name, value)) => {
                url.push_str(&encoded(value));
                rest = &rest[name.len()..];
            }
            None => {
                url.push('{');
                rest = &rest[1..];
            }
        }
    }
    url + rest
}

fn encoded(value: &str) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

async fn run(
    arguments: &[String],
    subject: &Subject,
    timeout: Millis,
) -> Result<CheckAnswer, Failure> {
    let Some((program, rest)) = arguments.split_first() else {
        return Err(("the command is empty".to_owned(), true));
    };
    let rest = rest.iter().map(|text| argument(text, subject)).collect::<Result<Vec<_>, _>>()?;
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
    let child = command
        .spawn()
        .map_err(|error| (format!("the command cannot be started: {}", error.kind()), true))?;
    let mut group = Group { id: child.id(), child };
    match tokio::time::timeout(timeout.duration(), group.finish()).await {
        Ok(answer) => {
            answer.map_err(|error| (format!("the command broke off: {}", error.kind()), false))
        }
        Err(_) => Err((format!("no end within {timeout}"), false)),
    }
}

/// A value takes the place of a whole argument only, and never becomes an option.
fn argument(text: &str, subject: &Subject) -> Result<String, Failure> {
    for (name, value) in values(subject) {
        if text == name && value.starts_with('-') {
            return Err((
                format!("the value of {name} starts with `-` and would be an option"),
                true,
            ));
        }
        if text == name {
            return Ok(value.to_owned());
        }
        if text.contains(name) {
            return Err((format!("{name} must be an argument of its own"), true));
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
    async fn finish(&mut self) -> std::io::Result<CheckAnswer> {
        let (stdout, stderr) = (self.child.stdout.take(), self.child.stderr.take());
        let (status, out, err) = tokio::join!(self.child.wait(), drained(stdout), drained(stderr));
        let status = status?;
        let text = if detail(&out).is_empty() { detail(&err) } else { detail(&out) };
        let how = || match status.code() {
            Some(code) => format!("exit code {code}"),
            None => "ended by a signal".to_owned(),
        };
        let text = if text.is_empty() { how() } else { text };
        Ok(CheckAnswer { held: status.success(), detail: text })
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
        let room = (ANSWER_BYTES_MAX as usize).saturating_sub(kept.len());
        kept.extend_from_slice(&piece[..length.min(room)]);
    }
    kept
}

/// The first line that says something, shortened and made safe to show.
fn detail(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let line: Vec<char> = text
        .lines()
        .map(str::trim)
        .find(|line| !line.is_empty())
        .unwrap_or_default()
        .chars()
        .collect();
    let cut = &line[..line.len().min(DETAIL_LENGTH_MAX)];
    // `shown` takes 80 characters at a time.
    let safe: String = cut.chunks(80).map(|part| shown(&part.iter().collect::<String>())).collect();
    safe.chars().take(DETAIL_LENGTH_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{RegionName, ServiceName, Version};

    fn subject(version: &str) -> Subject {
        Subject {
            service: ServiceName::new("api").unwrap(),
            version: Version::new(version).unwrap(),
            region: RegionName::new("eu_west_1").unwrap(),
        }
    }

    async fn command(
        arguments: &[&str],
        version: &str,
        timeout_ms: u64,
    ) -> Result<CheckAnswer, MetricsError> {
        let arguments = arguments.iter().map(|text| (*text).to_owned()).collect();
        let checks = Checks::new([("c".to_owned(), FleetCheck::Command(arguments))].into());
        checks.check("c", &subject(version), Millis(timeout_ms)).await
    }

    #[test]
    fn values_stay_one_piece_of_the_url() {
        let url = filled(
            "http://h/{service}/{version}?r={region}&x={y}",
            &subject("a/../b?c#d&{region}"),
        );
        assert_eq!(url, "http://h/api/a%2F..%2Fb%3Fc%23d%26%7Bregion%7D?r=eu_west_1&x={y}");
    }

    #[tokio::test]
    async fn a_command_holds_on_exit_code_zero_and_sees_values_as_arguments() {
        let held =
            command(&["sh", "-c", "echo \"$1; $HOME.\"", "sh", "{version}"], "$(id);x", 5_000)
                .await
                .unwrap();
        assert_eq!(held, CheckAnswer { held: true, detail: "$(id);x; .".to_owned() });
        let not = command(&["sh", "-c", "echo no >&2; exit 3"], "1", 5_000).await.unwrap();
        assert_eq!(not, CheckAnswer { held: false, detail: "no".to_owned() });
    }

    #[tokio::test]
    async fn a_command_that_hangs_is_killed_with_its_children() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("child");
        let script = format!("sleep 60 & echo $! > {}; wait", path.display());
        let error = command(&["sh", "-c", &script], "1", 500).await.unwrap_err();
        assert!(error.what.contains("no end within 500ms"), "{error}");
        let child = std::fs::read_to_string(path).unwrap();
        let state = format!("/proc/{}/stat", child.trim());
        let gone = || std::fs::read_to_string(&state).map_or(true, |stat| stat.contains(") Z "));
        for _ in 0..100 {
            if gone() {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        panic!("the child is still there");
    }

    #[tokio::test]
    async fn endless_output_is_bounded_and_safe_to_show() {
        let held = command(
            &["sh", "-c", "head -c 5000000 /dev/zero | tr '\\0' x; printf 'z'"],
            "1",
            20_000,
        )
        .await;
        assert_eq!(held.unwrap().detail, "x".repeat(200));
        let colour = command(&["printf", "\u{1b}[31mred"], "1", 5_000).await.unwrap();
        assert_eq!(colour.detail, "\\u{1b}[31mred");
    }

    #[tokio::test]
    async fn placeholders_within_an_argument_options_and_unknown_names_are_refused() {
        for (arguments, version) in
            [(&["true", "v={version}"], "1"), (&["true", "{version}"], "-rf")]
        {
            assert!(command(arguments, version, 1_000).await.unwrap_err().misconfigured);
        }
        assert!(command(&[], "1", 1_000).await.unwrap_err().misconfigured);
        assert!(command(&["/no/such/program"], "1", 1_000).await.unwrap_err().misconfigured);
        let none = Checks::new(BTreeMap::new());
        assert!(none.check("c", &subject("1"), Millis(10)).await.unwrap_err().misconfigured);
    }
}
