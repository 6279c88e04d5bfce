//! What the judge must do, on seeded worlds.

mod cohorts;
mod data;
mod evidence;
mod full;
mod reaction;
mod stages;
mod world;
