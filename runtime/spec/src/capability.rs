//! Capabilities by name and number, and the sets that a container gets.

use std::str::FromStr as _;

use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities};

use crate::error::{Error, Result};
use crate::intent::ContainerSecurity;

/// Names without `CAP_`; the index is the kernel's number.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What a container holds unless told otherwise: the set that Docker made usual.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// A set of capabilities, one bit each, as in `/proc/PID/status`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct CapSet(u64);

impl CapSet {
    /// Bits that stand for no capability we know are dropped.
    pub fn from_bits(bits: u64) -> Self {
        Self(bits & ((1 << NAMES.len()) - 1))
    }

    pub fn bits(self) -> u64 {
        self.0
    }

    /// Every capability with a name.
    pub fn all() -> Self {
        Self::from_bits(u64::MAX)
    }

    /// The default set of an unprivileged container.
    pub fn container_default() -> Self {
        DEFAULT
            .iter()
            .filter_map(|name| number(name))
            .fold(Self::default(), Self::with)
    }

    /// Whether the set has the capability; `name` with or without `CAP_`. A name
    /// that is no capability is in no set.
    pub fn contains(self, name: &str) -> bool {
        number(name).is_some_and(|bit| self.has(bit))
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Names with `CAP_`, in the kernel's order.
    pub fn names(self) -> impl Iterator<Item = String> {
        NAMES
            .iter()
            .enumerate()
            .filter(move |(bit, _)| self.has(*bit))
            .map(|(_, name)| format!("CAP_{name}"))
    }

    /// The bounding set of a container's process.
    pub fn of_process(capabilities: Option<&LinuxCapabilities>) -> Self {
        let bounding = capabilities.and_then(|sets| sets.bounding().as_ref());
        bounding
            .into_iter()
            .flatten()
            .filter_map(|capability| number(&capability.to_string()))
            .fold(Self::default(), Self::with)
    }

    fn has(self, bit: usize) -> bool {
        self.0 >> bit & 1 == 1
    }

    fn with(self, bit: usize) -> Self {
        Self(self.0 | 1 << bit)
    }

    fn without(self, bit: usize) -> Self {
        Self(self.0 & !(1 << bit))
    }

    fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    fn to_oci(self) -> Capabilities {
        NAMES
            .iter()
            .enumerate()
            .filter(|(bit, _)| self.has(*bit))
            .filter_map(|(_, name)| Capability::from_str(name).ok())
            .collect()
    }
}

/// Number of a capability; `name` in any case, with or without `CAP_`.
fn number(name: &str) -> Option<usize> {
    let name = name.to_ascii_uppercase();
    let short = name.strip_prefix("CAP_").unwrap_or(&name);
    NAMES.iter().position(|known| *known == short)
}

fn is_all(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    name == "ALL" || name == "CAP_ALL"
}

/// The capability sets of a container's process. `ours` is our own bounding set:
/// more than that can be given to nobody.
pub(crate) fn of_container(
    security: &ContainerSecurity,
    ours: CapSet,
) -> Result<LinuxCapabilities> {
    let add = Request::parse(
        "linux.security_context.capabilities.add",
        &security.add_capabilities,
    )?;
    let drop = Request::parse(
        "linux.security_context.capabilities.drop",
        &security.drop_capabilities,
    )?;
    let field = "linux.security_context.capabilities.add_ambient";
    let ambient = Request::parse(field, &security.add_ambient_capabilities)?;
    if security.privileged {
        return Ok(sets(ours, CapSet::default()));
    }
    let mut held = CapSet::container_default();
    if add.all {
        held = CapSet::all();
    }
    if drop.all {
        held = CapSet::default();
    }
    held = held.intersection(ours);
    for bit in add.named.iter().chain(&ambient.named) {
        if !ours.has(*bit) {
            let why = format!(
                "CAP_{} is not held by the runtime on this host",
                NAMES[*bit]
            );
            return Err(Error::unsupported(
                "linux.security_context.capabilities",
                why,
            ));
        }
        held = held.with(*bit);
    }
    held = drop.named.iter().fold(held, |set, bit| set.without(*bit));
    let ambient = if ambient.all {
        held
    } else {
        ambient
            .named
            .iter()
            .fold(CapSet::default(), |set, bit| set.with(*bit))
    };
    Ok(sets(held, ambient.intersection(held)))
}

/// Inheritable stays empty, because capabilities left there let a program's file
/// capabilities raise it; only what is ambient has to stand there too.
fn sets(held: CapSet, ambient: CapSet) -> LinuxCapabilities {
    let mut sets = LinuxCapabilities::default();
    sets.set_bounding(Some(held.to_oci()))
        .set_effective(Some(held.to_oci()))
        .set_permitted(Some(held.to_oci()))
        .set_inheritable(Some(ambient.to_oci()))
        .set_ambient(Some(ambient.to_oci()));
    sets
}

struct Request {
    all: bool,
    named: Vec<usize>,
}

impl Request {
    fn parse(field: &str, names: &[String]) -> Result<Self> {
        let mut request = Self {
            all: false,
            named: Vec::new(),
        };
        for name in names {
            if is_all(name) {
                request.all = true;
            } else {
                let bit = number(name)
                    .ok_or_else(|| Error::invalid(field, name, "is not a capability"))?;
                request.named.push(bit);
            }
        }
        Ok(request)
    }
}

/// Checks the names alone, without asking what the host holds.
pub(crate) fn validate(security: &ContainerSecurity) -> Result<()> {
    of_container(
        &ContainerSecurity {
            privileged: false,
            ..security.clone()
        },
        CapSet::all(),
    )
    .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn security(add: &[&str], drop: &[&str], ambient: &[&str]) -> ContainerSecurity {
        let own = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        ContainerSecurity {
            add_capabilities: own(add),
            drop_capabilities: own(drop),
            add_ambient_capabilities: own(ambient),
            ..ContainerSecurity::default()
        }
    }

    fn bounding(security: &ContainerSecurity) -> CapSet {
        CapSet::of_process(Some(&of_container(security, CapSet::all()).unwrap()))
    }

    #[test]
    fn every_name_is_known_to_the_oci_types_and_comes_back() {
        assert_eq!(CapSet::all().to_oci().len(), NAMES.len());
        let sets = sets(CapSet::all(), CapSet::default());
        assert_eq!(CapSet::of_process(Some(&sets)), CapSet::all());
    }

    #[test]
    fn default_is_the_usual_fourteen() {
        let set = bounding(&ContainerSecurity::default());
        assert_eq!(set.names().count(), 14);
        assert!(set.contains("CAP_NET_RAW") && set.contains("kill"));
        assert!(!set.contains("SYS_ADMIN"));
        assert_eq!(set.bits(), 0xa80425fb);
    }

    #[test]
    fn add_and_drop_take_names_in_both_forms() {
        let set = bounding(&security(
            &["NET_ADMIN", "CAP_SYS_TIME"],
            &["cap_net_raw", "CHOWN"],
            &[],
        ));
        assert!(set.contains("NET_ADMIN") && set.contains("SYS_TIME"));
        assert!(!set.contains("NET_RAW") && !set.contains("CHOWN"));
    }

    #[test]
    fn all_is_a_starting_point_for_the_named_ones() {
        assert_eq!(bounding(&security(&["ALL"], &[], &[])), CapSet::all());
        assert!(bounding(&security(&[], &["ALL"], &[])).is_empty());
        let one = bounding(&security(&["NET_BIND_SERVICE"], &["ALL"], &[]));
        assert_eq!(one.names().collect::<Vec<_>>(), ["CAP_NET_BIND_SERVICE"]);
        let most = bounding(&security(&["ALL"], &["SYS_ADMIN"], &[]));
        assert!(!most.contains("SYS_ADMIN") && most.contains("SYS_BOOT"));
    }

    #[test]
    fn inheritable_holds_only_what_is_ambient() {
        let sets = of_container(&ContainerSecurity::default(), CapSet::all()).unwrap();
        assert!(sets.inheritable().as_ref().unwrap().is_empty());
        let sets = of_container(&security(&[], &[], &["NET_BIND_SERVICE"]), CapSet::all()).unwrap();
        assert_eq!(sets.ambient(), sets.inheritable());
        assert_eq!(sets.ambient().as_ref().unwrap().len(), 1);
    }

    #[test]
    fn nobody_gets_more_than_the_runtime_holds() {
        let ours = CapSet::from_bits(CapSet::all().bits() & !(1 << 24));
        let privileged = ContainerSecurity {
            privileged: true,
            ..security(&[], &["ALL"], &[])
        };
        let sets = of_container(&privileged, ours).unwrap();
        assert_eq!(CapSet::of_process(Some(&sets)), ours);
        let sets = of_container(&security(&["ALL"], &[], &[]), ours).unwrap();
        assert!(!CapSet::of_process(Some(&sets)).contains("SYS_RESOURCE"));
        let error = of_container(&security(&["SYS_RESOURCE"], &[], &[]), ours).unwrap_err();
        assert!(error.to_string().contains("CAP_SYS_RESOURCE"), "{error}");
    }

    #[test]
    fn unknown_name_is_refused_by_name() {
        let error = validate(&security(&["NET_ADMNI"], &[], &[])).unwrap_err();
        assert_eq!(
            error,
            Error::invalid(
                "linux.security_context.capabilities.add",
                "NET_ADMNI",
                "is not a capability"
            )
        );
    }
}
