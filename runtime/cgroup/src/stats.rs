//! What a group has used, read straight from its files.

mod parse;
mod v1;
mod v2;

pub use parse::{Pressure, Stall};
pub(crate) use v1::{hugepages as v1_hugepages, read as v1};
pub(crate) use v2::{hugepages as v2_hugepages, read as v2};

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stats {
    pub cpu: Cpu,
    pub memory: Memory,
    /// None where swap is not accounted.
    pub swap: Option<Swap>,
    pub pids: Pids,
    /// Empty where input and output are not accounted.
    pub io: Vec<DeviceIo>,
    /// None where the kernel does not tell it, which under v1 it never does.
    pub io_pressure: Option<Pressure>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cpu {
    /// Since the group was made.
    pub usage_ns: u64,
    pub user_ns: u64,
    pub system_ns: u64,
    /// None where the group has no bandwidth control.
    pub throttling: Option<Throttling>,
    pub pressure: Option<Pressure>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Throttling {
    pub periods: u64,
    pub throttled_periods: u64,
    pub throttled_ns: u64,
}

/// Bytes, but for the counts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Memory {
    /// In use, page cache included.
    pub usage: u64,
    /// Usage without the page cache that is easily given back (CRI working_set_bytes).
    pub working_set: u64,
    /// Anonymous memory.
    pub rss: u64,
    /// Page cache.
    pub cache: u64,
    pub mapped_file: u64,
    /// None where the kernel does not tell it.
    pub kernel: Option<u64>,
    /// Most that was ever in use; None where the kernel does not tell it.
    pub peak: Option<u64>,
    /// None: unlimited.
    pub limit: Option<u64>,
    /// What the group is spared down to; None: nothing.
    pub reservation: Option<u64>,
    /// How often the limit was hit.
    pub limit_hits: u64,
    /// Processes that the kernel killed for want of memory.
    pub oom_kills: u64,
    /// Of the group and those below it.
    pub faults: Faults,
    /// Of the group alone; None where the kernel does not tell them apart.
    pub own_faults: Option<Faults>,
    pub pressure: Option<Pressure>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults {
    pub all: u64,
    pub major: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swap {
    pub usage: u64,
    /// None: unlimited.
    pub limit: Option<u64>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pids {
    /// Threads, as the kernel counts them.
    pub current: u64,
    /// None: unlimited.
    pub limit: Option<u64>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeviceIo {
    pub major: u32,
    pub minor: u32,
    pub reads: u64,
    pub read_bytes: u64,
    pub writes: u64,
    pub written_bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hugepages {
    /// `2MB`, `1GB`, as the kernel names it.
    pub size: String,
    pub usage: u64,
    /// None where the kernel does not tell it.
    pub peak: Option<u64>,
}
