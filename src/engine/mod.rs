//! The only place with opinions: pure, synchronous, time is an argument.

pub mod event;
pub mod judge;
pub mod poll;
pub mod rollout;
pub mod service;
pub mod verdict;
