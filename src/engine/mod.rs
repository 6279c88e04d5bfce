//! The only place with opinions: pure, synchronous, time is an argument.

pub mod poll;
pub mod verdict;
