//! What a group may use.

use std::collections::BTreeMap;

use crate::devices::DeviceRule;
use crate::error::{Error, Result};

/// Zero and empty mean "no limit asked for", but a huge page size that is named with
/// a limit of zero may not be used at all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    pub cpu_shares: u64,
    /// Microseconds in each period; negative for none.
    pub cpu_quota: i64,
    pub cpu_period: u64,
    /// Bytes; negative for none.
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

impl Limits {
    /// Controllers that one of these limits is for.
    pub(crate) fn controllers(&self) -> impl Iterator<Item = &'static str> {
        let cpu = self.cpu_shares != 0 || self.cpu_quota != 0 || self.cpu_period != 0;
        let memory = self.memory != 0 || self.memory_swap != 0;
        let cpuset = !self.cpuset_cpus.is_empty() || !self.cpuset_mems.is_empty();
        [
            (cpu, "cpu"),
            (memory, "memory"),
            (self.pids > 0, "pids"),
            (cpuset, "cpuset"),
            (!self.hugepages.is_empty(), "hugetlb"),
            (self.devices.is_some(), "devices"),
        ]
        .into_iter()
        .filter_map(|(wanted, name)| wanted.then_some(name))
    }

    /// A controller that this host lacks: an error if it was to carry a limit. A huge
    /// page limit of zero is kept where nothing gives huge pages to a group.
    pub(crate) fn missing(&self, name: &'static str) -> Result<()> {
        let only_zero = name == "hugetlb" && self.hugepages.iter().all(|(_, limit)| *limit == 0);
        if only_zero || self.controllers().all(|wanted| wanted != name) {
            return Ok(());
        }
        Err(Error::NoController(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::Limits;

    #[test]
    fn a_limit_without_its_controller_is_an_error_unless_it_is_no_limit() {
        let limits = Limits {
            pids: 5,
            hugepages: vec![("2MB".into(), 0)],
            ..Limits::default()
        };
        let error = limits.missing("pids").unwrap_err().to_string();
        assert!(error.contains("pids"), "{error}");
        assert!(limits.missing("memory").is_ok() && limits.missing("hugetlb").is_ok());
        let limits = Limits {
            hugepages: vec![("2MB".into(), 0), ("1GB".into(), 1)],
            ..Limits::default()
        };
        assert!(limits.missing("hugetlb").is_err());
    }
}
