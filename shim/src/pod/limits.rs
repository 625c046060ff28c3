//! What the CRI limits, as the cgroup crate wants it.

use carpel_cgroup::{DeviceKind, DeviceRule, Limits};
use carpel_spec::intent::Resources;
use carpel_spec::{HostFacts, linux_resources, validate};
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType, Spec};

use crate::error::Error;

/// Limits of a container: numbers from the request, device rules from its spec.
pub(super) fn of(resources: &Resources, spec: &Spec) -> Result<Limits, Error> {
    let oci = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.resources().as_ref());
    let rules = oci.and_then(|oci| oci.devices().as_ref());
    // The spec says what "no swap limit" means where memory is limited.
    let swap = oci
        .and_then(|oci| oci.memory().as_ref())
        .and_then(|memory| memory.swap());
    let pids = oci
        .and_then(|oci| oci.pids().as_ref())
        .map_or(0, oci_spec::runtime::LinuxPids::limit);
    Ok(Limits {
        memory_swap: swap.unwrap_or(resources.memory_swap_limit),
        pids,
        devices: rules.map(|rules| rules.iter().map(rule).collect()),
        ..given(resources)?
    })
}

/// What changes of a group when `update` has made its limits `whole`.
pub(super) fn change(update: &Resources, whole: &Resources) -> Result<Limits, Error> {
    let mut limits = given(update)?;
    if update.memory_limit != 0 || update.memory_swap_limit != 0 {
        // One depends on the other: both are told.
        limits.memory = whole.memory_limit;
        limits.memory_swap = match whole.memory_swap_limit {
            // Memory without a word about swap gets none.
            0 => whole.memory_limit,
            swap => swap,
        };
    }
    Ok(limits)
}

/// All limits of a group that has no devices of its own: a pod, or an update again.
pub(super) fn all(resources: &Resources) -> Result<Limits, Error> {
    change(resources, resources)
}

/// Refuses limits that cannot be right on this host, whatever the kernel would say.
pub(super) fn check(resources: &Resources, host: &HostFacts) -> Result<(), Error> {
    validate::resources(resources)?;
    linux_resources(resources, host)?;
    Ok(())
}

fn given(resources: &Resources) -> Result<Limits, Error> {
    let unsigned = |field: &str, value: i64| {
        u64::try_from(value)
            .map_err(|_| Error::Invalid(format!("resources.{field}: {value} is negative")))
    };
    Ok(Limits {
        cpu_shares: unsigned("cpu_shares", resources.cpu_shares)?,
        cpu_quota: resources.cpu_quota,
        cpu_period: unsigned("cpu_period", resources.cpu_period)?,
        memory: resources.memory_limit,
        memory_swap: resources.memory_swap_limit,
        pids: 0,
        cpuset_cpus: resources.cpuset_cpus.clone(),
        cpuset_mems: resources.cpuset_mems.clone(),
        hugepages: resources
            .hugepages
            .iter()
            .map(|h| (h.page_size.clone(), h.limit))
            .collect(),
        unified: resources.unified.clone(),
        devices: None,
    })
}

fn rule(rule: &LinuxDeviceCgroup) -> DeviceRule {
    let number = |n: Option<i64>| n.and_then(|n| u32::try_from(n).ok());
    DeviceRule {
        allow: rule.allow(),
        kind: match rule.typ() {
            Some(LinuxDeviceType::B) => DeviceKind::Block,
            Some(LinuxDeviceType::C | LinuxDeviceType::U) => DeviceKind::Character,
            _ => DeviceKind::All,
        },
        major: number(rule.major()),
        minor: number(rule.minor()),
        access: rule.access().clone().unwrap_or_else(|| "rwm".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::{change, check, of, rule};
    use carpel_cgroup::DeviceKind;
    use carpel_spec::HostFacts;
    use carpel_spec::intent::Resources;
    use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType, Spec};

    #[test]
    fn a_negative_share_is_refused_by_name() {
        let resources = Resources {
            cpu_shares: -1,
            ..Resources::default()
        };
        let error = of(&resources, &Spec::default()).unwrap_err().to_string();
        assert!(
            error.contains("cpu_shares") && error.contains("-1"),
            "{error}"
        );
    }

    #[test]
    fn memory_and_swap_are_told_together() {
        let update = |memory_limit, memory_swap_limit| Resources {
            memory_limit,
            memory_swap_limit,
            ..Resources::default()
        };
        let told = |update: &Resources, old: &Resources| {
            let limits = change(update, &old.updated(update)).unwrap();
            (limits.memory, limits.memory_swap)
        };
        assert_eq!(told(&update(0, 0), &update(100, 200)), (0, 0));
        assert_eq!(told(&update(150, 0), &update(100, 200)), (150, 200));
        assert_eq!(told(&update(150, 0), &update(100, 0)), (150, 150));
        assert_eq!(told(&update(0, 300), &update(100, 200)), (100, 300));
        assert_eq!(told(&update(-1, 0), &update(100, 0)), (-1, -1));
    }

    #[test]
    fn what_makes_no_sense_together_is_refused() {
        let crossed = Resources {
            memory_limit: 100,
            memory_swap_limit: 50,
            ..Resources::default()
        };
        let error = check(&crossed, &HostFacts::default()).unwrap_err();
        assert!(
            error.to_string().contains("memory_swap_limit_in_bytes"),
            "{error}"
        );
    }

    #[test]
    fn device_rules_keep_their_meaning() {
        let mut oci = LinuxDeviceCgroup::default();
        oci.set_allow(false)
            .set_typ(Some(LinuxDeviceType::A))
            .set_access(Some("rwm".into()));
        let denied = rule(&oci);
        assert!(!denied.allow && denied.kind == DeviceKind::All);
        oci.set_allow(true)
            .set_typ(Some(LinuxDeviceType::C))
            .set_major(Some(1))
            .set_minor(None);
        let allowed = rule(&oci);
        assert!(allowed.allow && allowed.kind == DeviceKind::Character);
        assert_eq!((allowed.major, allowed.minor), (Some(1), None));
    }
}
