//! The newest generation that this process has written, for balancers with no place for one.

use std::sync::{Mutex, PoisonError};

use crate::units::Generation;

/// Lets generations through in rising order; the same one again and again.
#[derive(Debug, Default)]
pub struct Fence(Mutex<Generation>);

impl Fence {
    /// An error with the words for it when a newer one has been here.
    pub fn admit(&self, generation: Generation) -> Result<(), String> {
        let mut newest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if generation < *newest {
            return Err(format!("{generation} is older than {}", *newest));
        }
        *newest = generation;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_ones_stay_outside() {
        let fence = Fence::default();
        assert!(fence.admit(Generation(3)).is_ok() && fence.admit(Generation(3)).is_ok());
        assert_eq!(fence.admit(Generation(2)).unwrap_err(), "g2 is older than g3");
        assert!(fence.admit(Generation(4)).is_ok());
    }
}
