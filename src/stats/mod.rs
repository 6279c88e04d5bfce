//! The mathematics: numbers in, numbers out; no word of ours, no I/O.
