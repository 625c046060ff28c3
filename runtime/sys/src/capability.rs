//! Capability sets of the calling thread.

use std::io;
use std::ops::BitAnd;

use rustix::io::Errno;
use rustix::thread::{CapabilitySet, CapabilitySets};

/// By number; the kernel never changes one.
const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// A set of capabilities, one bit each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Set(u64);

impl Set {
    /// The named ones; a name that nobody knows is left out.
    pub fn named<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> Self {
        let known = |name: S| NAMES.iter().position(|known| *known == name.as_ref());
        Self(
            names
                .into_iter()
                .filter_map(known)
                .fold(0, |set, number| set | 1 << number),
        )
    }

    #[must_use]
    pub fn bits(self) -> u64 {
        self.0
    }

    fn raw(self) -> CapabilitySet {
        CapabilitySet::from_bits_retain(self.0)
    }

    fn has(self, number: u32) -> bool {
        self.0 & (1 << number) != 0
    }
}

impl BitAnd for Set {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

/// The three sets that `capset(2)` changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sets {
    pub effective: Set,
    pub permitted: Set,
    pub inheritable: Set,
}

/// What this thread has.
pub fn held() -> io::Result<Sets> {
    let sets = rustix::thread::capabilities(None)?;
    Ok(Sets {
        effective: Set(sets.effective.bits()),
        permitted: Set(sets.permitted.bits()),
        inheritable: Set(sets.inheritable.bits()),
    })
}

/// Replaces what this thread has.
pub fn set(sets: Sets) -> io::Result<()> {
    let sets = CapabilitySets {
        effective: sets.effective.raw(),
        permitted: sets.permitted.raw(),
        inheritable: sets.inheritable.raw(),
    };
    Ok(rustix::thread::set_capabilities(None, sets)?)
}

/// Takes out of the bounding set what is not in `keep`, also what has no name yet.
pub fn bound_to(keep: Set) -> io::Result<()> {
    for number in 0..u64::BITS {
        if keep.has(number) {
            continue;
        }
        let one = CapabilitySet::from_bits_retain(1 << number);
        match rustix::thread::remove_capability_from_bounding_set(one) {
            Ok(()) => {}
            // Past the last one that this kernel knows.
            Err(Errno::INVAL) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Makes the ambient set what `wanted` says; what is not permitted and inheritable
/// already cannot be in it.
pub fn set_ambient(wanted: Set) -> io::Result<()> {
    rustix::thread::clear_ambient_capability_set()?;
    for number in (0..u64::BITS).filter(|number| wanted.has(*number)) {
        let one = CapabilitySet::from_bits_retain(1 << number);
        rustix::thread::configure_capability_in_ambient_set(one, true)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bits_and_unknown_ones_none() {
        let set = Set::named(["CAP_CHOWN", "CAP_NET_RAW", "CAP_FLY"]);
        assert_eq!(set.bits(), 1 | 1 << 13);
        assert_eq!(Set::named(["CAP_CHECKPOINT_RESTORE"]).bits(), 1 << 40);
        assert_eq!((set & Set::named(["CAP_CHOWN"])).bits(), 1);
    }

    #[test]
    fn a_thread_of_ours_can_lose_all() {
        std::thread::spawn(|| {
            let chown = Set::named(["CAP_CHOWN"]);
            bound_to(chown).unwrap();
            set(Sets {
                effective: chown,
                permitted: chown,
                inheritable: chown,
            })
            .unwrap();
            set_ambient(chown).unwrap();
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            for kind in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
                assert!(
                    status.contains(&format!("{kind}:\t0000000000000001")),
                    "{status}"
                );
            }
            set_ambient(Set::default()).unwrap();
            set(Sets::default()).unwrap();
            assert_eq!(held().unwrap(), Sets::default());
        })
        .join()
        .unwrap();
    }
}
