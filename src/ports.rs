//! The traits the driver needs.
