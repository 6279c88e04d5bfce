//! Probes and health of regions.
