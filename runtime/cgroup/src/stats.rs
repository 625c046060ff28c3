//! What a group has used, read straight from its files.

use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::files::{keyed, read_if_there};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// CPU time since the group was made, ns.
    pub cpu_usage_ns: u64,
    /// Bytes in use, page cache included.
    pub memory_usage: u64,
    /// Usage without the page cache that is easily given back (CRI working_set_bytes).
    pub memory_working_set: u64,
    /// Anonymous memory.
    pub memory_rss: u64,
    /// None: unlimited.
    pub memory_limit: Option<u64>,
    /// None where swap is not accounted.
    pub swap_usage: Option<u64>,
    pub page_faults: u64,
    pub major_page_faults: u64,
    pub pids: u64,
}

/// v1 says "unlimited" with a number near 2^63, rounded to pages.
const UNLIMITED: u64 = 1 << 62;

fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or(0)
}

pub(crate) fn v1(dirs: &[(Vec<String>, PathBuf)]) -> Result<Stats> {
    let mut stats = Stats::default();
    let file = |controller: &str, name: &str| -> Result<Option<String>> {
        match dirs
            .iter()
            .find(|(names, _)| names.iter().any(|n| n == controller))
        {
            Some((_, dir)) => read_if_there(&dir.join(name)),
            None => Ok(None),
        }
    };
    stats.cpu_usage_ns = number(&file("cpuacct", "cpuacct.usage")?.unwrap_or_default());
    stats.pids = number(&file("pids", "pids.current")?.unwrap_or_default());
    stats.memory_usage = number(&file("memory", "memory.usage_in_bytes")?.unwrap_or_default());
    let limit = number(&file("memory", "memory.limit_in_bytes")?.unwrap_or_default());
    stats.memory_limit = (limit > 0 && limit < UNLIMITED).then_some(limit);
    let detail = file("memory", "memory.stat")?.unwrap_or_default();
    let get = |key| keyed(&detail, key).unwrap_or(0);
    stats.memory_working_set = stats
        .memory_usage
        .saturating_sub(get("total_inactive_file"));
    stats.memory_rss = get("total_rss");
    stats.page_faults = get("total_pgfault");
    stats.major_page_faults = get("total_pgmajfault");
    let both = file("memory", "memory.memsw.usage_in_bytes")?;
    stats.swap_usage = both.map(|both| number(&both).saturating_sub(stats.memory_usage));
    Ok(stats)
}

pub(crate) fn v2(dir: &Path) -> Result<Stats> {
    let file = |name: &str| read_if_there(&dir.join(name));
    let cpu = file("cpu.stat")?.unwrap_or_default();
    let detail = file("memory.stat")?.unwrap_or_default();
    let get = |key| keyed(&detail, key).unwrap_or(0);
    let memory_usage = number(&file("memory.current")?.unwrap_or_default());
    Ok(Stats {
        cpu_usage_ns: keyed(&cpu, "usage_usec").unwrap_or(0) * 1000,
        memory_usage,
        memory_working_set: memory_usage.saturating_sub(get("inactive_file")),
        memory_rss: get("anon"),
        memory_limit: file("memory.max")?.and_then(|text| text.trim().parse().ok()),
        swap_usage: file("memory.swap.current")?.map(|text| number(&text)),
        page_faults: get("pgfault"),
        major_page_faults: get("pgmajfault"),
        pids: number(&file("pids.current")?.unwrap_or_default()),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{Stats, v2};

    #[test]
    fn v2_files_are_read() {
        let dir = std::env::temp_dir().join(format!("carpel-cgroup-stats-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        for (name, text) in [
            ("cpu.stat", "usage_usec 12\nuser_usec 5\n"),
            ("memory.current", "1000\n"),
            ("memory.max", "max\n"),
            (
                "memory.stat",
                "anon 300\ninactive_file 400\npgfault 5\npgmajfault 1\n",
            ),
            ("memory.swap.current", "7\n"),
            ("pids.current", "3\n"),
        ] {
            fs::write(dir.join(name), text).unwrap();
        }
        let stats = v2(&dir).unwrap();
        fs::remove_dir_all(&dir).unwrap();
        let expected = Stats {
            cpu_usage_ns: 12_000,
            memory_usage: 1000,
            memory_working_set: 600,
            memory_rss: 300,
            memory_limit: None,
            swap_usage: Some(7),
            page_faults: 5,
            major_page_faults: 1,
            pids: 3,
        };
        assert_eq!(stats, expected);
    }
}
