//! The formats of the files that both versions have.

use std::path::Path;

use super::DeviceIo;

/// How long tasks waited for a resource (Documentation/accounting/psi.rst).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pressure {
    /// At least one waited.
    pub some: Stall,
    /// All waited at once.
    pub full: Stall,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Stall {
    /// Percent of the last 10, 60 and 300 seconds.
    pub avg10: f64,
    pub avg60: f64,
    pub avg300: f64,
    pub total_us: u64,
}

pub(super) fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or(0)
}

/// `max` is no number: there is no limit.
pub(super) fn limit(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// A kernel that does not count pressure lacks the file, or refuses to read it.
pub(super) fn pressure(file: &Path) -> Option<Pressure> {
    parse_pressure(&std::fs::read_to_string(file).ok()?)
}

fn parse_pressure(text: &str) -> Option<Pressure> {
    let line = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let value = |key: &str| {
            line.split_whitespace()
                .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
        };
        Some(Stall {
            avg10: value("avg10")?.parse().ok()?,
            avg60: value("avg60")?.parse().ok()?,
            avg300: value("avg300")?.parse().ok()?,
            total_us: value("total")?.parse().ok()?,
        })
    };
    Some(Pressure {
        some: line("some ")?,
        // Kernels before 5.13 have none for the CPU.
        full: line("full ").unwrap_or_default(),
    })
}

pub(super) fn device(name: &str) -> Option<DeviceIo> {
    let (major, minor) = name.split_once(':')?;
    Some(DeviceIo {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
        ..DeviceIo::default()
    })
}

/// `SIZE` of `hugetlb.SIZE.REST`, each once.
pub(super) fn hugepage_sizes(dir: &Path, rest: &str) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut sizes: Vec<String> = entries
        .filter_map(|entry| {
            let name = entry.file_name();
            let size = name
                .to_str()?
                .strip_prefix("hugetlb.")?
                .strip_suffix(rest)?;
            let plain = size.strip_suffix('.')?;
            (!plain.contains('.')).then(|| plain.to_owned())
        })
        .collect();
    sizes.sort();
    sizes
}

#[cfg(test)]
mod tests {
    use super::{limit, parse_pressure};

    #[test]
    fn both_lines_of_a_pressure_file_are_read() {
        let text = "some avg10=1.50 avg60=0.25 avg300=0.00 total=12345\n\
                    full avg10=0.50 avg60=0.00 avg300=0.00 total=99\n";
        let pressure = parse_pressure(text).unwrap();
        assert!((pressure.some.avg10 - 1.5).abs() < 1e-9);
        assert!((pressure.some.avg60 - 0.25).abs() < 1e-9);
        assert_eq!(
            (pressure.some.total_us, pressure.full.total_us),
            (12345, 99)
        );
    }

    #[test]
    fn a_pressure_file_of_an_older_kernel_has_one_line() {
        let pressure = parse_pressure("some avg10=0.00 avg60=0.00 avg300=0.00 total=7\n").unwrap();
        assert_eq!((pressure.some.total_us, pressure.full.total_us), (7, 0));
        assert_eq!(parse_pressure("garbage\n"), None);
        assert_eq!(parse_pressure(""), None);
    }

    #[test]
    fn max_is_no_limit() {
        assert_eq!(limit("max\n"), None);
        assert_eq!(limit("17\n"), Some(17));
    }
}
