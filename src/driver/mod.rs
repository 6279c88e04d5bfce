//! The loop: observe, judge, decide, record, act.
