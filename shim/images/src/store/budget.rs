//! What all layers of one image may unpack to together.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::engine::Error;
use crate::unpack::Limits;

#[derive(Debug)]
pub(crate) struct Budget {
    most: u64,
    spent: AtomicU64,
}

impl Budget {
    pub(super) fn new(most: u64) -> Self {
        Self {
            most,
            spent: AtomicU64::new(0),
        }
    }

    /// For one more layer, which may not be larger than what is left.
    pub(super) fn limits(&self, limits: &Limits) -> Limits {
        let left = self.most.saturating_sub(self.spent.load(Ordering::Relaxed));
        Limits {
            bytes: limits.bytes.min(left),
            ..limits.clone()
        }
    }

    /// Layers are unpacked side by side, so the sum shows only afterwards.
    pub(super) fn spend(&self, bytes: u64, reference: &str) -> Result<(), Error> {
        let before = self.spent.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) <= self.most {
            return Ok(());
        }
        let most = self.most;
        let why = format!("{reference}: image is larger than {most} bytes when unpacked");
        Err(Error::Exhausted(why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_share_what_the_image_may_have() {
        let budget = Budget::new(100);
        let limits = Limits {
            bytes: 80,
            ..Limits::default()
        };
        assert_eq!(budget.limits(&limits).bytes, 80);
        budget.spend(60, "a").unwrap();
        assert_eq!(budget.limits(&limits).bytes, 40);
        assert!(matches!(budget.spend(41, "a"), Err(Error::Exhausted(_))));
        assert_eq!(budget.limits(&limits).bytes, 0);
    }
}
