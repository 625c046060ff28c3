//! oom_score_adj, which the runtime would fail to lower where we may not.

use std::fs;
use std::io::ErrorKind;

use crate::error::{Context, Result};

const OWN: &str = "/proc/self/oom_score_adj";

/// Sets this worker's own, which the runtime and its container inherit. Returns
/// whether the kernel refused, as it does to lower the value without
/// CAP_SYS_RESOURCE.
pub(crate) fn set_own(value: i32) -> Result<bool> {
    match fs::write(OWN, value.to_string()) {
        Ok(()) => Ok(false),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(true),
        Err(error) => Err(error).with(|| format!("set oom_score_adj to {value}")),
    }
}

/// What another process has.
pub(crate) fn of(pid: i32) -> Option<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).ok()?;
    text.trim().parse().ok()
}
