//! Load balancers that come to us: all their targets are registered first, then their ports open.

use std::collections::BTreeMap;
use std::sync::Arc;

#[cfg(feature = "xds")]
use super::envoy::xds;
use super::traefik::{Provider, ProviderPort};
use super::{Error, Known, TargetKey};
use crate::ports::LoadBalancer;
use crate::spec::fleet::{Adapter, Fleet};

/// Targets before the ports are open.
#[derive(Default)]
pub struct Registries {
    #[cfg(feature = "xds")]
    xds: xds::Registry,
    traefik: Provider,
}

/// Open ports; each closes with its value, and whoever fetches there keeps its weights.
#[derive(Default)]
pub struct Ports {
    #[cfg(feature = "xds")]
    xds: Option<xds::XdsServer>,
    traefik: Option<ProviderPort>,
}

impl Registries {
    /// The adapter of a target that comes to us; `None` for all others.
    pub fn register(
        &mut self,
        key: &TargetKey,
        adapter: &Adapter,
        known: &BTreeMap<TargetKey, Known>,
    ) -> Result<Option<Arc<dyn LoadBalancer>>, Error> {
        Ok(Some(match adapter {
            #[cfg(feature = "xds")]
            Adapter::Envoy(settings) => {
                let made = self.xds.register(key.to_string(), settings, known.get(key));
                let failed = |error| Error::Xds { target: key.clone(), error: Box::new(error) };
                Arc::new(made.map_err(failed)?)
            }
            #[cfg(not(feature = "xds"))]
            Adapter::Envoy(_) => return Err(Error::NoXds(key.clone())),
            Adapter::TraefikHttp(settings) => {
                let made = self.traefik.register(key, settings, known.get(key));
                Arc::new(made.map_err(|error| Error::Target { target: key.clone(), error })?)
            }
            _ => return Ok(None),
        }))
    }

    /// Opens the ports that `needed` asks for: by kind, a target that needs it.
    pub async fn open(
        self,
        fleet: &Fleet,
        needed: &BTreeMap<&str, TargetKey>,
    ) -> Result<Ports, Error> {
        let mut ports = Ports::default();
        #[cfg(feature = "xds")]
        if let Some(key) = needed.get("envoy") {
            let settings = fleet.xds.as_ref();
            let settings = settings.ok_or_else(|| Error::NoAddress(key.clone(), "xds"))?;
            ports.xds = Some(self.xds.open(settings).await.map_err(Error::Port)?);
        }
        if let Some(key) = needed.get("traefik_http") {
            let settings = fleet.traefik_provider.as_ref();
            let missing = || Error::NoAddress(key.clone(), "traefik_provider");
            let opened = self.traefik.open(settings.ok_or_else(missing)?).await;
            ports.traefik = Some(opened.map_err(Error::Provider)?);
        }
        Ok(ports)
    }
}

impl Ports {
    /// Closes them, and waits until they can be opened again.
    pub async fn close(self) {
        #[cfg(feature = "xds")]
        if let Some(xds) = self.xds {
            xds.close().await;
        }
        if let Some(traefik) = self.traefik {
            traefik.close().await;
        }
    }
}
