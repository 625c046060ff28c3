//! Proportional set sizes, in MB of 10^6 bytes (proc_pid_smaps(5)).

use std::collections::BTreeSet;

use anyhow::Context;

pub(crate) type Pids = BTreeSet<u32>;

pub(crate) fn processes() -> anyhow::Result<Pids> {
    let entries = std::fs::read_dir("/proc").context("list /proc")?;
    Ok(entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect())
}

pub(crate) fn of(pid: u32) -> anyhow::Result<f64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let kilobytes: f64 = text
        .lines()
        .find_map(|line| line.strip_prefix("Pss:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .with_context(|| format!("{path} has no Pss"))?;
    Ok(kilobytes * 1024.0 / 1e6)
}

/// All processes with one of these names that have come since.
pub(crate) fn since(before: &Pids, names: &[&str]) -> anyhow::Result<f64> {
    let mut sum = 0.0;
    for pid in processes()?.difference(before) {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        if names.contains(&name.trim_end()) {
            sum += of(*pid)?;
        }
    }
    Ok(sum)
}
