//! A seeded world with faults, for tests.
