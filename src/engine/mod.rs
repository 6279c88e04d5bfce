//! The only place with opinions: pure, synchronous, time is an argument.
//!
//! [`decide`](decide::decide) turns a state, an input and the time into facts; [`Rollout::apply`](rollout::Rollout)
//! folds them; [`outstanding`](outstanding::outstanding) derives what has still to be done.

mod advance;
pub mod approval;
pub mod decide;
pub mod event;
pub mod evidence;
pub mod forecast;
pub mod hooks;
pub mod input;
pub mod invariants;
pub mod judge;
pub mod outstanding;
pub mod poll;
mod polled;
mod reading;
pub mod reason;
pub mod rollout;
pub mod service;
pub mod verdict;
pub mod why;

#[cfg(test)]
mod tests;
