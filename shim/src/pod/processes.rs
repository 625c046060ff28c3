//! What processes hold open.

use std::path::Path;

/// Descriptors looked at for one container; what lies beyond is not counted.
const MOST: u64 = 1_000_000;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Processes {
    pub(crate) count: u64,
    pub(crate) descriptors: u64,
    pub(crate) sockets: u64,
    /// Soft limit of descriptors of the first process; None: unlimited, or it is gone.
    pub(crate) open_files_limit: Option<u64>,
}

impl Processes {
    /// One that ends meanwhile holds nothing.
    pub(super) fn count(pids: &[i32], first: i32) -> Self {
        let mut found = Self::default();
        // 0 is a process of a PID namespace that we do not see.
        for pid in pids.iter().filter(|pid| **pid > 0) {
            found.count += 1;
            found.count_descriptors(Path::new(&format!("/proc/{pid}/fd")));
        }
        if first > 0 {
            let limits = std::fs::read_to_string(format!("/proc/{first}/limits"));
            found.open_files_limit = limits.ok().and_then(|text| open_files_limit(&text));
        }
        found
    }

    fn count_descriptors(&mut self, dir: &Path) {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            if self.descriptors >= MOST {
                return;
            }
            self.descriptors += 1;
            let target = std::fs::read_link(entry.path());
            if target.is_ok_and(|target| target.to_string_lossy().starts_with("socket:")) {
                self.sockets += 1;
            }
        }
    }
}

/// The soft limit in proc_pid_limits(5).
fn open_files_limit(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{Processes, open_files_limit};

    #[test]
    fn the_soft_limit_is_the_first_number() {
        let text = "Limit                     Soft Limit           Hard Limit           Units\n\
                    Max file locks            unlimited            unlimited            locks\n\
                    Max open files            1024                 524288               files\n";
        assert_eq!(open_files_limit(text), Some(1024));
        let text = "Max open files            unlimited            unlimited            files\n";
        assert_eq!(open_files_limit(text), None);
    }

    #[test]
    fn a_socket_counts_as_descriptor_and_as_socket() {
        let own = i32::try_from(std::process::id()).unwrap();
        let before = Processes::count(&[own], own);
        let pair = std::os::unix::net::UnixStream::pair().unwrap();
        let after = Processes::count(&[own, 0], own);
        drop(pair);
        assert_eq!((before.count, after.count), (1, 1));
        assert!(after.sockets >= 2 && after.descriptors > after.sockets);
        assert!(after.open_files_limit.is_some_and(|limit| limit > 0));
    }
}
