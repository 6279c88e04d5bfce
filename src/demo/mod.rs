//! The embedded world behind `tidegate demo`.
