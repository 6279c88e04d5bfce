//! An HTTP endpoint of the operator's: `PUT` what is wanted, `GET` what is.

use async_trait::async_trait;
use reqwest::Method;

use super::super::api::{Api, Call, Login};
use super::super::{Unusable, quoted};
use super::Judge;
use super::protocol::{self, Wanted};
use crate::ports::{Capabilities, LoadBalancer, LoadBalancerError, Outcome, Reading, Split};
use crate::spec::fleet::OwnHttp;
use crate::units::{Generation, SlotName, shown};

/// One endpoint.
pub struct HttpBalancer {
    label: String,
    url: String,
    api: Api,
    judge: Judge,
    slots: [SlotName; 2],
}

impl HttpBalancer {
    /// For a target of the fleet; nothing is asked yet.
    pub fn new(label: String, settings: &OwnHttp, slots: &[SlotName; 2]) -> Result<Self, Unusable> {
        let login = settings.auth.clone().map(Login::Auth);
        let api = Api::new(label.clone(), &settings.url, login)?;
        let judge = Judge::new(settings.capabilities());
        Ok(Self { label, url: settings.url.clone(), api, judge, slots: slots.clone() })
    }

    async fn look(&self, lost: Outcome) -> Result<Reading, LoadBalancerError> {
        let answer = self.api.call(Call::get("")).await?;
        protocol::reading(&answer.body, &self.slots).map_err(|what| self.api.failure(what, lost))
    }
}

#[async_trait]
impl LoadBalancer for HttpBalancer {
    fn describe(&self) -> String {
        format!("{} (http {})", self.label, shown(&self.url))
    }

    fn capabilities(&self) -> Capabilities {
        self.judge.capabilities
    }

    async fn read(&self) -> Result<Reading, LoadBalancerError> {
        self.look(Outcome::NotSent).await
    }

    async fn set(
        &self,
        split: &Split,
        generation: Generation,
    ) -> Result<Reading, LoadBalancerError> {
        let admitted = self.judge.admit(split, generation);
        admitted.map_err(|(what, outcome)| self.api.failure(what, outcome))?;
        let wanted = serde_json::json!(Wanted::set(split, generation));
        self.api.call(Call::write(Method::PUT, "", wanted)).await?;
        // Whatever it answered: what counts is what it says when it is asked.
        let reading = self.look(Outcome::Unknown).await.map_err(|error| {
            self.api.failure(format!("set, not read back: {}", error.what), Outcome::Unknown)
        })?;
        if self.judge.is_newer(reading.generation, generation) {
            return Err(self.api.failure("a newer generation is there", Outcome::Superseded));
        }
        Ok(reading)
    }

    async fn by_hand(
        &self,
        split: &Split,
        generation: Generation,
    ) -> Result<Vec<String>, LoadBalancerError> {
        let wanted = quoted(&serde_json::json!(Wanted::set(split, generation)).to_string());
        let url = quoted(&self.url);
        Ok(vec![format!("curl -fsS -X PUT -H 'content-type: application/json' -d {wanted} {url}")])
    }
}
