//! Where numbers come from: Prometheus, or the endpoints themselves.
//!
//! [`connect`] opens a region's source; [`meter::Meter`] looks at it once per poll and yields increments, never raw
//! counters; [`check::Checks`] asks the operator's own checks.

use std::sync::Arc;

use crate::http;
use crate::ports::MetricsSource;
use crate::spec::fleet;

pub mod check;
pub mod increments;
pub mod meter;
pub mod prometheus;
pub mod recording;
pub mod scrape;
pub mod text;

/// Why a region's source cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its URL, certificate authority or client.
    #[error("the metrics source cannot be used")]
    Source(#[source] http::Error),
}

/// Opens the region's source of numbers. Nothing is asked yet: a server that is down is found out by the first look.
pub fn connect(region: &fleet::Region) -> Result<Arc<dyn MetricsSource>, Error> {
    match &region.metrics {
        fleet::MetricsSource::Prometheus(config) => {
            Ok(Arc::new(prometheus::Prometheus::new(config).map_err(Error::Source)?))
        }
        fleet::MetricsSource::Scrape(config) => {
            Ok(Arc::new(scrape::Scrape::new(config).map_err(Error::Source)?))
        }
    }
}

/// Reads any bytes as an answer of Prometheus and as a page of metrics.
#[cfg(feature = "fault-injection")]
pub fn read_anything(bytes: &[u8]) {
    prometheus::read_anything(bytes);
    // It is understood or refused; neither may panic.
    let _ = text::parse(bytes);
}
