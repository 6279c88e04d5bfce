//! Where numbers come from: Prometheus, or the endpoints themselves.
