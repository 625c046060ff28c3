//! What a group may use, and how each kernel interface wants to be told.

use std::collections::BTreeMap;

use crate::devices::DeviceRule;
use crate::error::{Error, Result};

/// Zero and empty mean "no limit asked for".
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    pub cpu_shares: u64,
    /// Microseconds in each period; negative for none.
    pub cpu_quota: i64,
    pub cpu_period: u64,
    /// Bytes.
    pub memory: i64,
    /// Bytes of memory and swap together; -1 for unlimited swap.
    pub memory_swap: i64,
    pub pids: i64,
    pub cpuset_cpus: String,
    pub cpuset_mems: String,
    /// Page size as the kernel names it (`2MB`), and bytes.
    pub hugepages: Vec<(String, u64)>,
    /// v2 files by name.
    pub unified: BTreeMap<String, String>,
    /// In order; None leaves devices as the parent has them.
    pub devices: Option<Vec<DeviceRule>>,
}

/// One write into a file of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) controller: &'static str,
    pub(crate) file: String,
    pub(crate) value: String,
    /// Kernels without swap accounting lack the file.
    pub(crate) may_lack: bool,
}

impl Setting {
    fn new(controller: &'static str, file: &str, value: impl ToString) -> Self {
        Self {
            controller,
            file: file.into(),
            value: value.to_string(),
            may_lack: false,
        }
    }
}

impl Limits {
    /// Controllers that carry one of these limits.
    pub(crate) fn controllers(&self) -> impl Iterator<Item = &'static str> {
        let cpu = self.cpu_shares != 0 || self.cpu_quota != 0 || self.cpu_period != 0;
        let memory = self.memory != 0 || self.memory_swap != 0;
        let cpuset = !self.cpuset_cpus.is_empty() || !self.cpuset_mems.is_empty();
        let hugetlb = self.hugepages.iter().any(|(_, limit)| *limit != 0);
        [
            (cpu, "cpu"),
            (memory, "memory"),
            (self.pids > 0, "pids"),
            (cpuset, "cpuset"),
            (hugetlb, "hugetlb"),
            (self.devices.is_some(), "devices"),
        ]
        .into_iter()
        .filter_map(|(wanted, name)| wanted.then_some(name))
    }

    /// A controller that this host lacks: an error if it was to carry a limit.
    pub(crate) fn missing(&self, name: &'static str) -> Result<()> {
        if self.controllers().any(|wanted| wanted == name) {
            return Err(Error::NoController(name));
        }
        Ok(())
    }

    pub(crate) fn v1(&self) -> Vec<Setting> {
        let mut all = Vec::new();
        if !self.cpuset_cpus.is_empty() {
            all.push(Setting::new("cpuset", "cpuset.cpus", &self.cpuset_cpus));
        }
        if !self.cpuset_mems.is_empty() {
            all.push(Setting::new("cpuset", "cpuset.mems", &self.cpuset_mems));
        }
        if self.cpu_shares != 0 {
            all.push(Setting::new("cpu", "cpu.shares", self.cpu_shares));
        }
        if self.cpu_period != 0 {
            all.push(Setting::new("cpu", "cpu.cfs_period_us", self.cpu_period));
        }
        if self.cpu_quota != 0 {
            all.push(Setting::new(
                "cpu",
                "cpu.cfs_quota_us",
                self.cpu_quota.max(-1),
            ));
        }
        if self.memory != 0 {
            all.push(Setting::new("memory", "memory.limit_in_bytes", self.memory));
        }
        if self.memory_swap != 0 {
            let file = "memory.memsw.limit_in_bytes";
            let mut swap = Setting::new("memory", file, self.memory_swap);
            // Equal limits mean "no swap", which holds where swap is not accounted.
            swap.may_lack = self.memory_swap == self.memory;
            all.push(swap);
        }
        if self.pids > 0 {
            all.push(Setting::new("pids", "pids.max", self.pids));
        }
        for (size, limit) in self.hugepages.iter().filter(|(_, limit)| *limit != 0) {
            all.push(Setting::new(
                "hugetlb",
                &format!("hugetlb.{size}.limit_in_bytes"),
                limit,
            ));
        }
        all
    }

    pub(crate) fn v2(&self) -> Vec<Setting> {
        let mut all = Vec::new();
        let limit = |value: i64| {
            if value < 0 {
                "max".to_owned()
            } else {
                value.to_string()
            }
        };
        if !self.cpuset_cpus.is_empty() {
            all.push(Setting::new("cpuset", "cpuset.cpus", &self.cpuset_cpus));
        }
        if !self.cpuset_mems.is_empty() {
            all.push(Setting::new("cpuset", "cpuset.mems", &self.cpuset_mems));
        }
        if self.cpu_shares != 0 {
            all.push(Setting::new("cpu", "cpu.weight", weight(self.cpu_shares)));
        }
        if self.cpu_quota != 0 || self.cpu_period != 0 {
            let quota = if self.cpu_quota > 0 {
                limit(self.cpu_quota)
            } else {
                "max".into()
            };
            let period = if self.cpu_period != 0 {
                self.cpu_period
            } else {
                100_000
            };
            all.push(Setting::new("cpu", "cpu.max", format!("{quota} {period}")));
        }
        if self.memory != 0 {
            all.push(Setting::new("memory", "memory.max", limit(self.memory)));
        }
        if self.memory_swap != 0 {
            // v2 counts swap alone; the request counts memory and swap together.
            let swap = if self.memory_swap < 0 {
                -1
            } else {
                self.memory_swap - self.memory.max(0)
            };
            let mut setting = Setting::new("memory", "memory.swap.max", limit(swap));
            setting.may_lack = swap == 0;
            all.push(setting);
        }
        if self.pids > 0 {
            all.push(Setting::new("pids", "pids.max", self.pids));
        }
        for (size, limit) in self.hugepages.iter().filter(|(_, limit)| *limit != 0) {
            all.push(Setting::new(
                "hugetlb",
                &format!("hugetlb.{size}.max"),
                limit,
            ));
        }
        for (file, value) in &self.unified {
            all.push(Setting::new("unified", file, value));
        }
        all
    }
}

/// From shares (2 to 262144) to a weight (1 to 10000), as Kubernetes converts them.
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

#[cfg(test)]
mod tests {
    use super::{Limits, weight};

    fn shown(settings: &[super::Setting]) -> Vec<String> {
        settings
            .iter()
            .map(|s| format!("{}={}", s.file, s.value))
            .collect()
    }

    #[test]
    fn shares_become_a_weight() {
        assert_eq!((weight(2), weight(1024), weight(262_144)), (1, 39, 10_000));
        assert_eq!((weight(0), weight(u64::MAX)), (1, 10_000));
    }

    #[test]
    fn nothing_asked_for_writes_nothing() {
        assert!(Limits::default().v1().is_empty() && Limits::default().v2().is_empty());
        let zero_pages = Limits {
            hugepages: vec![("2MB".into(), 0)],
            ..Limits::default()
        };
        assert!(zero_pages.v1().is_empty() && zero_pages.missing("hugetlb").is_ok());
    }

    #[test]
    fn each_limit_is_told_in_the_words_of_its_version() {
        let limits = Limits {
            cpu_shares: 1024,
            cpu_quota: 20_000,
            cpu_period: 100_000,
            memory: 1 << 20,
            memory_swap: 1 << 20,
            pids: 7,
            ..Limits::default()
        };
        assert_eq!(
            shown(&limits.v1()),
            [
                "cpu.shares=1024",
                "cpu.cfs_period_us=100000",
                "cpu.cfs_quota_us=20000",
                "memory.limit_in_bytes=1048576",
                "memory.memsw.limit_in_bytes=1048576",
                "pids.max=7"
            ]
        );
        assert_eq!(
            shown(&limits.v2()),
            [
                "cpu.weight=39",
                "cpu.max=20000 100000",
                "memory.max=1048576",
                "memory.swap.max=0",
                "pids.max=7"
            ]
        );
    }

    #[test]
    fn a_limit_without_its_controller_is_an_error() {
        let limits = Limits {
            pids: 5,
            ..Limits::default()
        };
        assert!(limits.missing("pids").is_err());
        assert!(limits.missing("memory").is_ok());
    }
}
