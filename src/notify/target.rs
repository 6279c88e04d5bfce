//! Where notices go: webhooks, Slack, PagerDuty, Alertmanager, programs.

use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::Sha256;

use crate::ports::Notice;
use crate::spec::fleet::{Notify, NotifyKind};
use crate::units::Millis;
use crate::{command, http};

/// Longest time of one delivery.
const DELIVERY_MAX: Millis = Millis::from_secs(10);

/// A notice as it waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// The same for the same notice.
    pub key: String,
    /// Somebody has to act.
    pub page: bool,
    /// One line.
    pub text: String,
    /// More of them.
    #[serde(default)]
    pub lines: Vec<String>,
    /// When it was told, in seconds since 1970.
    pub at: u64,
}

impl Waiting {
    /// A notice that is told now.
    pub fn new(notice: &Notice, at: u64) -> Self {
        let Notice { key, page, text, lines, .. } = notice.clone();
        Self { key, page, text, lines, at }
    }

    /// All of it, a line each.
    fn whole(&self) -> String {
        std::iter::once(&self.text)
            .chain(&self.lines)
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join("\n")
    }
}

/// Why it was not delivered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Trying again may help.
    #[error("{0}")]
    Later(String),
    /// It was refused; the same will be refused again.
    #[error("{0}")]
    Refused(String),
}

/// Whether a target wants it.
pub fn wants(target: &Notify, page: bool) -> bool {
    page || !target.pages_only
}

/// Delivers one notice.
pub async fn deliver(target: &Notify, notice: &Waiting) -> Result<(), Error> {
    match &target.kind {
        NotifyKind::Webhook { url, secret } => {
            let kind = if notice.page { "tidegate.page" } else { "tidegate.notice" };
            let body = json!({
                "specversion": "1.0", "id": notice.key, "source": "tidegate", "type": kind,
                "datacontenttype": "application/json", "data": {"text": notice.text, "lines": notice.lines, "page": notice.page, "at": notice.at},
            })
            .to_string();
            let key = http::secret(secret).map_err(wrong)?;
            let signature = signature(&key, notice.at, &body)?;
            let headers = [
                ("content-type", "application/cloudevents+json".to_owned()),
                ("tidegate-signature", signature),
                ("idempotency-key", notice.key.clone()),
            ];
            post(url, &headers, body).await
        }
        NotifyKind::Slack { url } => {
            let url = http::secret(url).map_err(wrong)?;
            // What is said is no markup.
            let text =
                notice.whole().replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
            post_json(&url, json!({"text": text})).await
        }
        NotifyKind::PagerDuty { routing_key, url } => {
            let routing_key = http::secret(routing_key).map_err(wrong)?;
            let severity = if notice.page { "critical" } else { "info" };
            let payload = json!({
                "summary": notice.text, "source": "tidegate", "severity": severity, "custom_details": {"lines": notice.lines},
            });
            let body = json!({
                "routing_key": routing_key, "event_action": "trigger", "dedup_key": notice.key, "payload": payload,
            });
            post_json(url, body).await
        }
        NotifyKind::Alertmanager { url } => {
            let severity = if notice.page { "page" } else { "info" };
            let labels =
                json!({"alertname": "Tidegate", "severity": severity, "notice": notice.key});
            let alert = json!({"labels": labels, "annotations": {"summary": notice.text, "description": notice.lines.join("\n")}});
            post_json(&format!("{}/api/v2/alerts", url.trim_end_matches('/')), json!([alert])).await
        }
        NotifyKind::Email(email) => super::email::send(email, &notice.text, &notice.whole()).await,
        NotifyKind::Command(arguments) => {
            let values = [("{text}", notice.text.as_str()), ("{key}", notice.key.as_str())];
            match command::run(arguments, &values, DELIVERY_MAX).await {
                Ok(ended) if ended.success => Ok(()),
                Ok(ended) => Err(Error::Later(ended.detail)),
                Err(error) => Err(Error::Later(error.to_string())),
            }
        }
    }
}

pub(super) fn wrong(error: impl ToString) -> Error {
    Error::Later(error.to_string())
}

/// `t=<seconds>,v1=<HMAC-SHA256 of "seconds.body" in hex>`.
pub fn signature(key: &str, at: u64, body: &str) -> Result<String, Error> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).map_err(wrong)?;
    mac.update(format!("{at}.{body}").as_bytes());
    let hex: String =
        mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("t={at},v1={hex}"))
}

async fn post_json(url: &str, body: serde_json::Value) -> Result<(), Error> {
    post(url, &[("content-type", "application/json".to_owned())], body.to_string()).await
}

async fn post(url: &str, headers: &[(&str, String)], body: String) -> Result<(), Error> {
    let client = http::client(url, DELIVERY_MAX, None).map_err(wrong)?;
    let mut request = client.post(url).body(body);
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    // The error of a request may name the URL, which is a secret for some.
    let response = request.send().await.map_err(|error| wrong(http::Error::from(error)))?;
    let status = response.status();
    match status.as_u16() {
        200..=299 => Ok(()),
        408 | 425 | 429 | 500..=599 => Err(Error::Later(format!("HTTP {status}"))),
        _ => Err(Error::Refused(format!("HTTP {status}"))),
    }
}
