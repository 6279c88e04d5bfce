//! One table per boundary of `decide`: state, input, time, and the facts that follow. A second turn changes nothing.

mod approvals;
mod commands;
mod data;
mod drift;
mod evidence;
mod hooks;
mod mirror;
mod scene;
mod walk;
mod windows;
