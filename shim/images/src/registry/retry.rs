//! Another attempt, after a while, a bounded number of times.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::config::RetryPolicy;
use super::failure::Failure;

/// How long to wait after the `failed`th failure, or `None` to give up. `jitter` is
/// from 0 to 1: nodes that failed together should not come back together.
pub(super) fn pause(
    policy: &RetryPolicy,
    failure: &Failure,
    failed: u32,
    jitter: f64,
) -> Option<Duration> {
    let Failure::Transient { retry_after, .. } = failure else {
        return None;
    };
    if failed >= policy.attempts {
        return None;
    }
    if let Some(wish) = *retry_after {
        return (wish <= policy.max_retry_after).then_some(wish.max(policy.base));
    }
    let doubled = policy.base.saturating_mul(1 << (failed - 1).min(16));
    Some(
        doubled
            .min(policy.max)
            .mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0),
    )
}

/// Good enough to spread nodes, with no generator to seed.
pub(super) fn jitter() -> f64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    f64::from(now.subsec_micros() % 1000) / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(seconds: u64) -> Failure {
        Failure::Transient {
            why: "busy".into(),
            retry_after: Some(Duration::from_secs(seconds)),
        }
    }

    #[test]
    fn pauses_double_up_to_a_bound_and_then_end() {
        let policy = RetryPolicy {
            attempts: 9,
            ..RetryPolicy::default()
        };
        let after = |failed| pause(&policy, &Failure::transient("x"), failed, 1.0);
        let millis = |n| Some(Duration::from_millis(n));
        assert_eq!(
            [after(1), after(2), after(3)],
            [millis(250), millis(500), millis(1000)]
        );
        assert_eq!([after(8), after(9)], [millis(5000), None]);
        assert_eq!(
            pause(&policy, &Failure::transient("x"), 1, 0.0),
            millis(125)
        );
    }

    #[test]
    fn a_registry_is_given_the_pause_it_asks_for_within_reason() {
        let policy = RetryPolicy::default();
        assert_eq!(
            pause(&policy, &asks(30), 1, 0.0),
            Some(Duration::from_secs(30))
        );
        assert_eq!(pause(&policy, &asks(31), 1, 0.0), None);
        assert_eq!(pause(&policy, &asks(0), 1, 0.0), Some(policy.base));
    }

    #[test]
    fn what_cannot_pass_is_not_tried_again() {
        for failure in [Failure::corrupt("x"), Failure::NotFound("x".into())] {
            assert_eq!(pause(&RetryPolicy::default(), &failure, 1, 0.0), None);
        }
    }
}
