//! What is used, as CRI messages.

use carpel_cgroup::{Pressure, Stall, Stats};
use carpel_proto::cri;

use super::to_wire::{container_metadata, map, number, pod_metadata};
use crate::pod::{ContainerUsage, Interface, PodUsage, Usage};

/// With the pod's first address, in every network that Kubernetes has.
const DEFAULT_INTERFACE: &str = "eth0";

pub(super) fn container(used: &ContainerUsage) -> cri::ContainerStats {
    let running = used.running.as_ref();
    let container = &used.container;
    cri::ContainerStats {
        attributes: Some(cri::ContainerAttributes {
            id: container.id.clone(),
            metadata: Some(container_metadata(&container.config)),
            labels: map(&container.config.labels),
            annotations: map(&container.config.annotations),
        }),
        cpu: running.map(cpu),
        memory: running.map(memory),
        writable_layer: Some(cri::FilesystemUsage {
            timestamp: used.at_ns,
            fs_id: Some(cri::FilesystemIdentifier {
                mountpoint: used.filesystem.to_string(),
            }),
            used_bytes: number(used.writable.bytes),
            inodes_used: number(used.writable.inodes),
        }),
        swap: running.and_then(|usage| swap(usage.at_ns, &usage.stats)),
        io: running.and_then(io),
    }
}

pub(super) fn pod(used: &PodUsage) -> cri::PodSandboxStats {
    let timestamp = used.usage.at_ns;
    let pod = &used.pod;
    cri::PodSandboxStats {
        attributes: Some(cri::PodSandboxAttributes {
            id: pod.id.clone(),
            metadata: Some(pod_metadata(&pod.config)),
            labels: map(&pod.config.labels),
            annotations: map(&pod.config.annotations),
        }),
        linux: Some(cri::LinuxPodSandboxStats {
            cpu: Some(cpu(&used.usage)),
            memory: Some(memory(&used.usage)),
            network: used
                .network
                .as_deref()
                .map(|interfaces| network(timestamp, interfaces)),
            process: Some(cri::ProcessUsage {
                timestamp,
                process_count: number(used.processes),
            }),
            containers: used.containers.iter().map(container).collect(),
            io: io(&used.usage),
        }),
        windows: None,
    }
}

fn cpu(usage: &Usage) -> cri::CpuUsage {
    cri::CpuUsage {
        timestamp: usage.at_ns,
        usage_core_nano_seconds: number(usage.stats.cpu.usage_ns),
        usage_nano_cores: usage.nano_cores.and_then(number),
        psi: usage.stats.cpu.pressure.as_ref().map(pressure),
    }
}

fn memory(usage: &Usage) -> cri::MemoryUsage {
    let memory = &usage.stats.memory;
    cri::MemoryUsage {
        timestamp: usage.at_ns,
        working_set_bytes: number(memory.working_set),
        available_bytes: memory
            .limit
            .and_then(|limit| number(limit.saturating_sub(memory.working_set))),
        usage_bytes: number(memory.usage),
        rss_bytes: number(memory.rss),
        page_faults: number(memory.faults.all),
        major_page_faults: number(memory.faults.major),
        psi: memory.pressure.as_ref().map(pressure),
    }
}

fn swap(timestamp: i64, stats: &Stats) -> Option<cri::SwapUsage> {
    stats.swap.map(|swap| cri::SwapUsage {
        timestamp,
        swap_available_bytes: swap
            .limit
            .and_then(|limit| number(limit.saturating_sub(swap.usage))),
        swap_usage_bytes: number(swap.usage),
    })
}

fn io(usage: &Usage) -> Option<cri::IoUsage> {
    usage.stats.io_pressure.as_ref().map(|found| cri::IoUsage {
        timestamp: usage.at_ns,
        psi: Some(pressure(found)),
    })
}

fn pressure(pressure: &Pressure) -> cri::PsiStats {
    let data = |stall: &Stall| cri::PsiData {
        // The kernel counts microseconds, the CRI nanoseconds.
        total: stall.total_us.saturating_mul(1000),
        avg10: stall.avg10,
        avg60: stall.avg60,
        avg300: stall.avg300,
    };
    cri::PsiStats {
        full: Some(data(&pressure.full)),
        some: Some(data(&pressure.some)),
    }
}

fn network(timestamp: i64, interfaces: &[Interface]) -> cri::NetworkUsage {
    let wire = |interface: &Interface| cri::NetworkInterfaceUsage {
        name: interface.name.clone(),
        rx_bytes: number(interface.received.bytes),
        rx_errors: number(interface.received.errors),
        tx_bytes: number(interface.sent.bytes),
        tx_errors: number(interface.sent.errors),
    };
    let (default, others): (Vec<_>, Vec<_>) = interfaces
        .iter()
        .map(wire)
        .partition(|interface| interface.name == DEFAULT_INTERFACE);
    cri::NetworkUsage {
        timestamp,
        default_interface: default.into_iter().next(),
        interfaces: others,
    }
}

#[cfg(test)]
mod tests {
    use carpel_cgroup::{Pressure, Stall};

    use super::{network, pressure};
    use crate::pod::Interface;

    #[test]
    fn pressure_is_told_in_nanoseconds() {
        let found = Pressure {
            some: Stall {
                avg10: 1.5,
                total_us: 7,
                ..Stall::default()
            },
            full: Stall::default(),
        };
        let wire = pressure(&found).some.unwrap();
        assert_eq!(wire.total, 7000);
        assert!((wire.avg10 - 1.5).abs() < 1e-9);
    }

    #[test]
    fn no_interface_is_told_twice() {
        let interface = |name: &str| Interface {
            name: name.into(),
            ..Interface::default()
        };
        let wire = network(1, &[interface("tunl0"), interface("eth0")]);
        assert_eq!(wire.default_interface.unwrap().name, "eth0");
        assert_eq!(wire.interfaces.len(), 1);
        assert_eq!(wire.interfaces[0].name, "tunl0");
    }
}
