//! What users write, and the checked types it becomes.
