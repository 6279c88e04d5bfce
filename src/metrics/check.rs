//! Asks the checks that the operator defines in the fleet: HTTP and commands.

use std::collections::BTreeMap;

use async_trait::async_trait;

use crate::ports::{CheckAnswer, Checker, MetricsError, Subject};
use crate::spec::fleet::{Auth, FleetCheck};
use crate::units::{Millis, shown};
use crate::{command, http};

/// Most bytes of an answer that are looked at.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

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
                let ended = command::run(arguments, &values(subject), timeout).await;
                let answer =
                    |end: command::Ended| CheckAnswer { held: end.success, detail: end.detail };
                ended.map(answer).map_err(|error| wrong((error.to_string(), error.is_wrong())))
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
    let text = if status.is_success() { command::first_line(&body) } else { String::new() };
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
