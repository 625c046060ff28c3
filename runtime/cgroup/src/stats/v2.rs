//! The files of cgroup v2, all in one directory.

use std::path::Path;

use super::parse::{device, hugepage_sizes, limit, number, pressure};
use super::{Cpu, DeviceIo, Faults, Hugepages, Memory, Pids, Stats, Swap, Throttling};
use crate::error::Result;
use crate::files::{keyed, read_if_there};

pub(crate) fn read(dir: &Path) -> Result<Stats> {
    let file = |name: &str| read_if_there(&dir.join(name));
    Ok(Stats {
        cpu: cpu(dir)?,
        memory: memory(dir)?,
        swap: match file("memory.swap.current")? {
            Some(usage) => Some(Swap {
                usage: number(&usage),
                limit: file("memory.swap.max")?.and_then(|text| limit(&text)),
            }),
            None => None,
        },
        pids: Pids {
            current: number(&file("pids.current")?.unwrap_or_default()),
            limit: file("pids.max")?.and_then(|text| limit(&text)),
        },
        io: parse_io(&file("io.stat")?.unwrap_or_default()),
        io_pressure: pressure(&dir.join("io.pressure")),
    })
}

fn cpu(dir: &Path) -> Result<Cpu> {
    let text = read_if_there(&dir.join("cpu.stat"))?.unwrap_or_default();
    let us = |key: &str| keyed(&text, key).unwrap_or(0) * 1000;
    // The lines are there only with the cpu controller.
    let throttling = keyed(&text, "nr_periods").map(|periods| Throttling {
        periods,
        throttled_periods: keyed(&text, "nr_throttled").unwrap_or(0),
        throttled_ns: us("throttled_usec"),
    });
    Ok(Cpu {
        usage_ns: us("usage_usec"),
        user_ns: us("user_usec"),
        system_ns: us("system_usec"),
        throttling,
        pressure: pressure(&dir.join("cpu.pressure")),
    })
}

fn memory(dir: &Path) -> Result<Memory> {
    let file = |name: &str| read_if_there(&dir.join(name));
    let detail = file("memory.stat")?.unwrap_or_default();
    let events = file("memory.events")?.unwrap_or_default();
    let get = |key: &str| keyed(&detail, key).unwrap_or(0);
    let usage = number(&file("memory.current")?.unwrap_or_default());
    let reservation = file("memory.low")?.and_then(|text| limit(&text));
    Ok(Memory {
        usage,
        working_set: usage.saturating_sub(get("inactive_file")),
        rss: get("anon"),
        cache: get("file"),
        mapped_file: get("file_mapped"),
        kernel: kernel(&detail),
        // Linux 5.19.
        peak: file("memory.peak")?.map(|text| number(&text)),
        limit: file("memory.max")?.and_then(|text| limit(&text)),
        reservation: reservation.filter(|bytes| *bytes > 0),
        limit_hits: keyed(&events, "max").unwrap_or(0),
        oom_kills: keyed(&events, "oom_kill").unwrap_or(0),
        faults: Faults {
            all: get("pgfault"),
            major: get("pgmajfault"),
        },
        own_faults: None,
        pressure: pressure(&dir.join("memory.pressure")),
    })
}

/// Told as one number since Linux 5.18.
fn kernel(detail: &str) -> Option<u64> {
    let parts = ["kernel_stack", "pagetables", "percpu", "sock", "slab"];
    keyed(detail, "kernel").or_else(|| {
        parts
            .iter()
            .any(|key| keyed(detail, key).is_some())
            .then(|| parts.iter().filter_map(|key| keyed(detail, key)).sum())
    })
}

fn parse_io(text: &str) -> Vec<DeviceIo> {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let mut device = device(words.next()?)?;
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            match key {
                "rbytes" => device.read_bytes = number(value),
                "wbytes" => device.written_bytes = number(value),
                "rios" => device.reads = number(value),
                "wios" => device.writes = number(value),
                _ => {}
            }
        }
        Some(device)
    };
    text.lines().filter_map(line).collect()
}

pub(crate) fn hugepages(dir: &Path) -> Result<Vec<Hugepages>> {
    hugepage_sizes(dir, "current")
        .into_iter()
        .map(|size| {
            let file = dir.join(format!("hugetlb.{size}.current"));
            Ok(Hugepages {
                usage: number(&read_if_there(&file)?.unwrap_or_default()),
                peak: None,
                size,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::{DeviceIo, Faults, Pids, Swap, Throttling};
    use super::{hugepages, kernel, parse_io, read};

    #[test]
    fn all_files_are_read() {
        let dir = std::env::temp_dir().join(format!("carpel-cgroup-v2-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        for (name, text) in [
            (
                "cpu.stat",
                "usage_usec 12\nuser_usec 5\nsystem_usec 7\nnr_periods 4\nnr_throttled 1\n\
                 throttled_usec 9\n",
            ),
            (
                "cpu.pressure",
                "some avg10=2.00 avg60=0.00 avg300=0.00 total=3\n",
            ),
            ("memory.current", "1000\n"),
            ("memory.peak", "1500\n"),
            ("memory.max", "max\n"),
            ("memory.low", "0\n"),
            ("memory.events", "low 0\nhigh 0\nmax 6\noom 1\noom_kill 2\n"),
            (
                "memory.stat",
                "anon 300\nfile 500\nkernel 50\nfile_mapped 20\ninactive_file 400\npgfault 5\n\
                 pgmajfault 1\n",
            ),
            ("memory.swap.current", "7\n"),
            ("memory.swap.max", "100\n"),
            ("pids.current", "3\n"),
            ("pids.max", "64\n"),
            (
                "io.stat",
                "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n",
            ),
            ("hugetlb.2MB.current", "2097152\n"),
        ] {
            fs::write(dir.join(name), text).unwrap();
        }
        let stats = read(&dir).unwrap();
        let pages = hugepages(&dir).unwrap();
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(
            (stats.cpu.usage_ns, stats.cpu.user_ns, stats.cpu.system_ns),
            (12_000, 5_000, 7_000)
        );
        let throttling = Throttling {
            periods: 4,
            throttled_periods: 1,
            throttled_ns: 9_000,
        };
        assert_eq!(stats.cpu.throttling, Some(throttling));
        assert_eq!(stats.cpu.pressure.map(|p| p.some.total_us), Some(3));
        let memory = &stats.memory;
        assert_eq!((memory.usage, memory.working_set), (1000, 600));
        assert_eq!(
            (memory.rss, memory.cache, memory.mapped_file),
            (300, 500, 20)
        );
        assert_eq!((memory.limit, memory.reservation), (None, None));
        assert_eq!((memory.peak, memory.kernel), (Some(1500), Some(50)));
        assert_eq!((memory.limit_hits, memory.oom_kills), (6, 2));
        assert_eq!(memory.faults, Faults { all: 5, major: 1 });
        assert!(memory.pressure.is_none() && stats.io_pressure.is_none());
        let swap = Swap {
            usage: 7,
            limit: Some(100),
        };
        assert_eq!(stats.swap, Some(swap));
        let pids = Pids {
            current: 3,
            limit: Some(64),
        };
        assert_eq!(stats.pids, pids);
        assert_eq!(stats.io.len(), 1);
        assert_eq!((pages[0].size.as_str(), pages[0].usage), ("2MB", 2_097_152));
    }

    #[test]
    fn an_older_kernel_tells_its_memory_in_parts() {
        assert_eq!(kernel("kernel 9\nslab 5\n"), Some(9));
        assert_eq!(kernel("kernel_stack 1\nslab 5\n"), Some(6));
        assert_eq!(kernel("anon 5\n"), None);
    }

    #[test]
    fn a_device_without_numbers_is_one_that_did_nothing() {
        let expected = [
            DeviceIo {
                major: 8,
                ..DeviceIo::default()
            },
            DeviceIo {
                major: 253,
                minor: 1,
                reads: 3,
                read_bytes: 1,
                writes: 4,
                written_bytes: 2,
            },
        ];
        let text = "8:0 \n253:1 rbytes=1 wbytes=2 rios=3 wios=4\nnonsense\n";
        assert_eq!(parse_io(text), expected);
    }
}
