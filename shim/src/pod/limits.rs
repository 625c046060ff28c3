//! What the CRI limits, as the cgroup crate wants it.

use carpel_cgroup::{DeviceKind, DeviceRule, Limits};
use carpel_spec::intent::Resources;
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType, Spec};

use crate::error::Error;

/// Limits of a container: numbers from the request, device rules from its spec.
pub(super) fn of(resources: &Resources, spec: &Spec) -> Result<Limits, Error> {
    let unsigned = |field: &str, value: i64| {
        u64::try_from(value)
            .map_err(|_| Error::Invalid(format!("resources.{field}: {value} is negative")))
    };
    let oci = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.resources().as_ref());
    let rules = oci.and_then(|oci| oci.devices().as_ref());
    // The spec says what "no swap limit" means where memory is limited.
    let swap = oci
        .and_then(|oci| oci.memory().as_ref())
        .and_then(|memory| memory.swap());
    Ok(Limits {
        cpu_shares: unsigned("cpu_shares", resources.cpu_shares)?,
        cpu_quota: resources.cpu_quota,
        cpu_period: unsigned("cpu_period", resources.cpu_period)?,
        memory: resources.memory_limit,
        memory_swap: swap.unwrap_or(resources.memory_swap_limit),
        pids: 0,
        cpuset_cpus: resources.cpuset_cpus.clone(),
        cpuset_mems: resources.cpuset_mems.clone(),
        hugepages: resources
            .hugepages
            .iter()
            .map(|h| (h.page_size.clone(), h.limit))
            .collect(),
        unified: resources.unified.clone(),
        devices: rules.map(|rules| rules.iter().map(rule).collect()),
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
    use super::{of, rule};
    use carpel_cgroup::DeviceKind;
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
