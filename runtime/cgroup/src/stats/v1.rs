//! The files of cgroup v1, spread over the hierarchies that the group is in.

use std::path::{Path, PathBuf};

use super::parse::{device, hugepage_sizes, number};
use super::{Cpu, DeviceIo, Faults, Hugepages, Memory, Pids, Stats, Swap, Throttling};
use crate::error::Result;
use crate::files::{keyed, read_if_there};

/// "Unlimited" is a number near 2^63, rounded to pages.
const UNLIMITED: u64 = 1 << 62;
/// `cpuacct.stat` counts in hundredths of a second, whatever the kernel's own tick.
const TICK_NS: u64 = 10_000_000;

type Dirs = [(Vec<String>, PathBuf)];

fn dir<'a>(dirs: &'a Dirs, controller: &str) -> Option<&'a Path> {
    dirs.iter()
        .find(|(names, _)| names.iter().any(|name| name == controller))
        .map(|(_, dir)| dir.as_path())
}

fn file(dirs: &Dirs, controller: &str, name: &str) -> Result<Option<String>> {
    match dir(dirs, controller) {
        Some(dir) => read_if_there(&dir.join(name)),
        None => Ok(None),
    }
}

pub(crate) fn read(dirs: &Dirs) -> Result<Stats> {
    let memory = memory(dirs)?;
    Ok(Stats {
        cpu: cpu(dirs)?,
        swap: swap(dirs, &memory)?,
        memory,
        pids: Pids {
            current: number(&file(dirs, "pids", "pids.current")?.unwrap_or_default()),
            limit: file(dirs, "pids", "pids.max")?.and_then(|text| text.trim().parse().ok()),
        },
        io: io(dirs)?,
        io_pressure: None,
    })
}

fn cpu(dirs: &Dirs) -> Result<Cpu> {
    let count = |name: &str| Ok(file(dirs, "cpuacct", name)?.map(|text| number(&text)));
    let ticks = file(dirs, "cpuacct", "cpuacct.stat")?.unwrap_or_default();
    let or_ticks = |exact: Option<u64>, key: &str| {
        exact.unwrap_or_else(|| keyed(&ticks, key).unwrap_or(0) * TICK_NS)
    };
    let throttling = file(dirs, "cpu", "cpu.stat")?.map(|text| Throttling {
        periods: keyed(&text, "nr_periods").unwrap_or(0),
        throttled_periods: keyed(&text, "nr_throttled").unwrap_or(0),
        throttled_ns: keyed(&text, "throttled_time").unwrap_or(0),
    });
    Ok(Cpu {
        usage_ns: count("cpuacct.usage")?.unwrap_or(0),
        user_ns: or_ticks(count("cpuacct.usage_user")?, "user"),
        system_ns: or_ticks(count("cpuacct.usage_sys")?, "system"),
        throttling,
        pressure: None,
    })
}

fn memory(dirs: &Dirs) -> Result<Memory> {
    let count = |name: &str| Ok(file(dirs, "memory", name)?.map(|text| number(&text)));
    let bound = |value: Option<u64>| value.filter(|bytes| *bytes > 0 && *bytes < UNLIMITED);
    let detail = file(dirs, "memory", "memory.stat")?.unwrap_or_default();
    let oom = file(dirs, "memory", "memory.oom_control")?.unwrap_or_default();
    let get = |key: &str| keyed(&detail, key).unwrap_or(0);
    let usage = count("memory.usage_in_bytes")?.unwrap_or(0);
    Ok(Memory {
        usage,
        working_set: usage.saturating_sub(get("total_inactive_file")),
        rss: get("total_rss"),
        cache: get("total_cache"),
        mapped_file: get("total_mapped_file"),
        kernel: count("memory.kmem.usage_in_bytes")?,
        peak: count("memory.max_usage_in_bytes")?,
        limit: bound(count("memory.limit_in_bytes")?),
        reservation: bound(count("memory.soft_limit_in_bytes")?),
        limit_hits: count("memory.failcnt")?.unwrap_or(0),
        oom_kills: keyed(&oom, "oom_kill").unwrap_or(0),
        faults: Faults {
            all: get("total_pgfault"),
            major: get("total_pgmajfault"),
        },
        own_faults: Some(Faults {
            all: get("pgfault"),
            major: get("pgmajfault"),
        }),
        pressure: None,
    })
}

/// v1 counts memory and swap together.
fn swap(dirs: &Dirs, memory: &Memory) -> Result<Option<Swap>> {
    let count = |name: &str| Ok(file(dirs, "memory", name)?.map(|text| number(&text)));
    let Some(both) = count("memory.memsw.usage_in_bytes")? else {
        return Ok(None);
    };
    let limit = count("memory.memsw.limit_in_bytes")?.filter(|bytes| *bytes < UNLIMITED);
    Ok(Some(Swap {
        usage: both.saturating_sub(memory.usage),
        limit: limit.map(|both| both.saturating_sub(memory.limit.unwrap_or(0))),
    }))
}

fn io(dirs: &Dirs) -> Result<Vec<DeviceIo>> {
    let read = |name: &str| -> Result<String> {
        let whole = file(dirs, "blkio", &format!("blkio.throttle.{name}_recursive"))?;
        Ok(match whole {
            Some(text) => text,
            None => file(dirs, "blkio", &format!("blkio.throttle.{name}"))?.unwrap_or_default(),
        })
    };
    Ok(parse_io(&read("io_service_bytes")?, &read("io_serviced")?))
}

fn parse_io(bytes: &str, operations: &str) -> Vec<DeviceIo> {
    let mut devices: Vec<DeviceIo> = Vec::new();
    for (text, of_bytes) in [(bytes, true), (operations, false)] {
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let (Some(name), Some(kind), Some(value)) = (words.next(), words.next(), words.next())
            else {
                continue;
            };
            let Some(new) = device(name) else { continue };
            let same = |have: &DeviceIo| (have.major, have.minor) == (new.major, new.minor);
            let at = devices.iter().position(same).unwrap_or_else(|| {
                devices.push(new);
                devices.len() - 1
            });
            let device = &mut devices[at];
            match (kind, of_bytes) {
                ("Read", true) => device.read_bytes = number(value),
                ("Write", true) => device.written_bytes = number(value),
                ("Read", false) => device.reads = number(value),
                ("Write", false) => device.writes = number(value),
                _ => {}
            }
        }
    }
    devices
}

pub(crate) fn hugepages(dirs: &Dirs) -> Result<Vec<Hugepages>> {
    let Some(dir) = dir(dirs, "hugetlb") else {
        return Ok(Vec::new());
    };
    let read = |name: String| Ok(read_if_there(&dir.join(name))?.map(|text| number(&text)));
    hugepage_sizes(dir, "usage_in_bytes")
        .into_iter()
        .map(|size| {
            Ok(Hugepages {
                usage: read(format!("hugetlb.{size}.usage_in_bytes"))?.unwrap_or(0),
                peak: read(format!("hugetlb.{size}.max_usage_in_bytes"))?,
                size,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::{DeviceIo, Faults, Pids, Swap, Throttling};
    use super::{hugepages, parse_io, read};

    #[test]
    fn each_hierarchy_gives_its_part() {
        let base = tempfile();
        for (name, text) in [
            ("cpuacct.usage", "1000\n"),
            ("cpuacct.usage_user", "600\n"),
            ("cpuacct.stat", "user 1\nsystem 3\n"),
            (
                "cpu.stat",
                "nr_periods 10\nnr_throttled 2\nthrottled_time 500\n",
            ),
        ] {
            fs::write(base.join("cpu").join(name), text).unwrap();
        }
        for (name, text) in [
            ("memory.usage_in_bytes", "1000\n"),
            ("memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory.soft_limit_in_bytes", "512\n"),
            ("memory.max_usage_in_bytes", "2000\n"),
            ("memory.failcnt", "4\n"),
            ("memory.memsw.usage_in_bytes", "1100\n"),
            ("memory.memsw.limit_in_bytes", "9223372036854771712\n"),
            ("memory.oom_control", "oom_kill_disable 0\noom_kill 3\n"),
            (
                "memory.stat",
                "pgfault 1\npgmajfault 2\ntotal_cache 5\ntotal_rss 6\ntotal_mapped_file 7\n\
                 total_inactive_file 300\ntotal_pgfault 8\ntotal_pgmajfault 9\n",
            ),
        ] {
            fs::write(base.join("memory").join(name), text).unwrap();
        }
        let dirs = [
            (vec!["cpu".into(), "cpuacct".into()], base.join("cpu")),
            (vec!["memory".into()], base.join("memory")),
        ];
        let stats = read(&dirs).unwrap();
        fs::remove_dir_all(&base).unwrap();
        assert_eq!(
            (stats.cpu.usage_ns, stats.cpu.user_ns, stats.cpu.system_ns),
            (1000, 600, 30_000_000)
        );
        let throttling = Throttling {
            periods: 10,
            throttled_periods: 2,
            throttled_ns: 500,
        };
        assert_eq!(stats.cpu.throttling, Some(throttling));
        let memory = &stats.memory;
        assert_eq!((memory.usage, memory.working_set), (1000, 700));
        assert_eq!((memory.rss, memory.cache, memory.mapped_file), (6, 5, 7));
        assert_eq!((memory.limit, memory.reservation), (None, Some(512)));
        assert_eq!((memory.peak, memory.kernel), (Some(2000), None));
        assert_eq!((memory.limit_hits, memory.oom_kills), (4, 3));
        assert_eq!(memory.faults, Faults { all: 8, major: 9 });
        assert_eq!(memory.own_faults, Some(Faults { all: 1, major: 2 }));
        let swap = Swap {
            usage: 100,
            limit: None,
        };
        assert_eq!(stats.swap, Some(swap));
        assert_eq!(stats.pids, Pids::default());
        assert!(stats.io.is_empty() && stats.io_pressure.is_none());
    }

    #[test]
    fn devices_come_from_both_files() {
        let bytes = "8:0 Read 10\n8:0 Write 20\n8:0 Sync 1\n253:1 Read 5\nTotal 36\n";
        let operations = "8:0 Read 1\n8:0 Write 2\nTotal 3\n";
        let expected = [
            DeviceIo {
                major: 8,
                minor: 0,
                reads: 1,
                read_bytes: 10,
                writes: 2,
                written_bytes: 20,
            },
            DeviceIo {
                major: 253,
                minor: 1,
                read_bytes: 5,
                ..DeviceIo::default()
            },
        ];
        assert_eq!(parse_io(bytes, operations), expected);
    }

    #[test]
    fn each_size_of_pages_is_told() {
        let base = tempfile();
        for (name, text) in [
            ("hugetlb.2MB.usage_in_bytes", "4194304\n"),
            ("hugetlb.2MB.max_usage_in_bytes", "8388608\n"),
            ("hugetlb.2MB.rsvd.usage_in_bytes", "1\n"),
        ] {
            fs::write(base.join("cpu").join(name), text).unwrap();
        }
        let found = hugepages(&[(vec!["hugetlb".into()], base.join("cpu"))]).unwrap();
        fs::remove_dir_all(&base).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].size.as_str(), found[0].usage, found[0].peak),
            ("2MB", 4_194_304, Some(8_388_608))
        );
    }

    fn tempfile() -> std::path::PathBuf {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("carpel-cgroup-v1-{}-{number}", std::process::id());
        let base = std::env::temp_dir().join(name);
        for dir in ["cpu", "memory"] {
            fs::create_dir_all(base.join(dir)).unwrap();
        }
        base
    }
}
