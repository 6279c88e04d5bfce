//! The journal, and sled as the state that everything reads.
