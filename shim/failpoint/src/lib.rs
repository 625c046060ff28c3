//! A testing aid: ends the process, without a chance to clean up, at the n-th step
//! of its work.
//!
//! A step stands before and after each durable write and each effect that outlives
//! the daemon. Unless a test arms it, a step is one load of an integer.

use std::sync::atomic::{AtomicU64, Ordering};

/// Environment variable of the daemon: `7` ends it at the seventh step after it
/// began to serve, `recovery:7` at the seventh after its start.
pub const VARIABLE: &str = "CARPEL_FAIL_AT";

const RECOVERY: &str = "recovery:";

/// The step to end at; 0 is none.
static AT: AtomicU64 = AtomicU64::new(0);
static COUNT: AtomicU64 = AtomicU64::new(0);

/// When to begin to count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    Start,
    Serving,
}

/// What the variable asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    pub from: From,
    pub step: u64,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{VARIABLE}: {0:?} is neither a number from 1 nor {RECOVERY:?} and one")]
pub struct NotAPlan(String);

impl Plan {
    /// Reads the value of [`VARIABLE`].
    pub fn parse(text: &str) -> Result<Self, NotAPlan> {
        let (from, number) = match text.strip_prefix(RECOVERY) {
            Some(number) => (From::Start, number),
            None => (From::Serving, text),
        };
        match number.parse() {
            Ok(step) if step > 0 => Ok(Self { from, step }),
            _ => Err(NotAPlan(text.to_owned())),
        }
    }

    /// Begins to count if this is when the plan says so.
    pub fn begin(self, now: From) {
        if self.from == now {
            tracing::warn!(step = self.step, "ending at a step, as a test asks");
            AT.store(self.step, Ordering::Relaxed);
        }
    }
}

/// One step; `name` says what is done now, or is about to be.
#[inline]
pub fn step(name: &'static str) {
    let at = AT.load(Ordering::Relaxed);
    if at != 0 {
        count(at, name);
    }
}

#[cold]
fn count(at: u64, name: &'static str) {
    let step = COUNT.fetch_add(1, Ordering::Relaxed) + 1;
    tracing::info!(step, name, "step");
    if step < at {
        return;
    }
    let killed =
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    tracing::error!(?killed, "still here");
    std::process::abort();
}

#[cfg(test)]
mod tests {
    use super::{From, Plan, step};

    #[test]
    fn the_variable_is_read() {
        let plan = |from, step| Ok(Plan { from, step });
        assert_eq!(Plan::parse("7"), plan(From::Serving, 7));
        assert_eq!(Plan::parse("recovery:12"), plan(From::Start, 12));
        for bad in ["", "0", "-1", "x", "recovery:", "start:1", "recovery:0"] {
            let error = Plan::parse(bad).unwrap_err().to_string();
            assert!(error.contains(&format!("{bad:?}")), "{error}");
        }
    }

    #[test]
    fn unarmed_steps_do_nothing() {
        step("a step");
        Plan::parse("recovery:1").unwrap().begin(From::Serving);
        step("another");
    }
}
