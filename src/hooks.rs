//! Runs the operator's hooks: programs and HTTP endpoints that the fleet names.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde_json::json;

use crate::ports::{Hook, HookRunner, HookSubject, Standing};
use crate::spec::fleet::{Auth, FleetHook, HookRun};
use crate::units::Millis;
use crate::{command, http};

/// Most bytes of an answer that are looked at.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// The hooks of one service.
#[derive(Debug, Default)]
pub struct FleetHooks {
    hooks: BTreeMap<Hook, FleetHook>,
}

impl FleetHooks {
    /// Those that the fleet has for the service.
    #[must_use]
    pub fn new(hooks: BTreeMap<Hook, FleetHook>) -> Self {
        Self { hooks }
    }
}

#[async_trait]
impl HookRunner for FleetHooks {
    async fn run(&self, hook: Hook, subject: &HookSubject, again: bool) -> Standing {
        let Some(FleetHook { run, status, timeout }) = self.hooks.get(&hook) else {
            return Standing::Failed("the fleet has no such hook any more".to_owned());
        };
        if let Some(status) = status.as_ref().filter(|_| again) {
            match perform(status, hook, subject, *timeout).await {
                Standing::Failed(_) => {}
                known => return known,
            }
        }
        perform(run, hook, subject, *timeout).await
    }
}

async fn perform(run: &HookRun, hook: Hook, subject: &HookSubject, timeout: Millis) -> Standing {
    match run {
        HookRun::Http { url, auth } => post(url, auth.as_ref(), hook, subject, timeout).await,
        HookRun::Command(arguments) => {
            let values = [
                ("{service}", subject.service.as_str()),
                ("{region}", subject.region.as_str()),
                ("{slot}", subject.slot.as_str()),
                ("{version}", subject.version.as_str()),
                ("{key}", subject.key.as_str()),
            ];
            match command::run(arguments, &values, timeout).await {
                Ok(ended) if ended.success => Standing::Done,
                Ok(ended) => Standing::Failed(ended.detail),
                Err(error) if error.is_wrong() => Standing::Failed(error.to_string()),
                Err(error) => Standing::Unknown(error.to_string()),
            }
        }
    }
}

/// 2xx is done, any other answer is not, none after the question was sent is unknown.
async fn post(
    url: &str,
    auth: Option<&Auth>,
    hook: Hook,
    subject: &HookSubject,
    timeout: Millis,
) -> Standing {
    let wrong = |error: http::Error| Standing::Failed(error.to_string());
    let client = match http::client(url, timeout, None) {
        Ok(client) => client,
        Err(error) => return wrong(error),
    };
    let HookSubject { service, region, slot, version, key } = subject;
    let body = json!({
        "hook": hook, "service": service, "region": region, "slot": slot, "version": version, "key": key,
    });
    let request = client.post(url).header("idempotency-key", key).json(&body);
    let request = match http::with_auth(request, auth) {
        Ok(request) => request,
        Err(error) => return wrong(error),
    };
    let response = match request.send().await {
        Ok(response) => response,
        Err(error) if error.is_connect() => return wrong(error.into()),
        Err(error) => return Standing::Unknown(http::Error::from(error).to_string()),
    };
    let status = response.status();
    if status.is_success() {
        return Standing::Done;
    }
    let body = http::body(response, ANSWER_BYTES_MAX).await.unwrap_or_default();
    let text = format!("HTTP {status}: {}", command::first_line(&body));
    // Behind a gateway somebody may have done it all the same.
    if status.is_server_error() { Standing::Unknown(text) } else { Standing::Failed(text) }
}
