//! What the bridge driver needs.

use crate::doctor::facts::{Config, Kernel, Module, Network};
use crate::doctor::line::{Line, Lines};

const MODULES: [&str; 5] = ["bridge", "veth", "nf_tables", "nf_nat", "nf_conntrack"];

pub(super) fn judge(network: &Network, config: &Config, kernel: &Kernel) -> Vec<Line> {
    let mut lines = Lines::of("network");
    if !config.bridge {
        lines.ok("pods have no network (network.driver is none)");
        return lines.lines;
    }
    nft(&mut lines, network, config.masquerade);
    for module in MODULES {
        if kernel.modules.get(module) == Some(&Module::Missing) {
            let message = format!("the kernel has no module {module}");
            lines.fail(message, "install the modules of the running kernel");
        }
    }
    let has = |v6: bool| config.pod_cidrs.iter().any(|cidr| cidr.contains(':') == v6);
    if has(false) {
        forwarding(
            &mut lines,
            network,
            "net.ipv4.ip_forward",
            network.ip_forward.as_deref(),
        );
    }
    if has(true) {
        let key = "net.ipv6.conf.all.forwarding";
        forwarding(&mut lines, network, key, network.ipv6_forward.as_deref());
    }
    for chain in &network.dropping {
        lines.warn(
            format!("chain {chain} drops what is forwarded unless a rule lets it through"),
            "let the pods' bridge through, in and out",
        );
    }
    lines.lines
}

fn nft(lines: &mut Lines, network: &Network, masquerade: bool) {
    match (&network.nft, &network.nft_fails) {
        (None, _) if masquerade => lines.fail(
            "nft is not installed",
            "install nftables: masquerading and host ports need it",
        ),
        (None, _) => lines.warn(
            "nft is not installed",
            "install nftables: host ports need it",
        ),
        (Some(_), Some(why)) => lines.fail(
            format!("nft does not work: {why}"),
            "use a kernel with CONFIG_NF_TABLES and CONFIG_NF_TABLES_INET",
        ),
        (Some(path), None) => lines.ok(format!("nft: {}", path.display())),
    }
}

fn forwarding(lines: &mut Lines, network: &Network, key: &str, value: Option<&str>) {
    match value {
        Some("0") if network.sysctls_read_only => lines.fail(
            format!("{key} is 0, and /proc/sys is read-only"),
            "set it to 1 before the daemon starts",
        ),
        Some("0") => lines.ok(format!("{key} is 0; the first pod sets it")),
        Some(_) => lines.ok(format!("{key} is on")),
        None => lines.fail(
            format!("{key} is not there"),
            "use a kernel with this address family, or no pod CIDR of it",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::line::Level;

    fn well() -> (Network, Config) {
        let network = Network {
            nft: Some("/usr/sbin/nft".into()),
            ip_forward: Some("0".into()),
            ..Network::default()
        };
        let config = Config {
            bridge: true,
            masquerade: true,
            pod_cidrs: vec!["10.88.0.0/16".into()],
            ..Config::default()
        };
        (network, config)
    }

    fn worst(network: &Network, config: &Config) -> Level {
        let lines = judge(network, config, &Kernel::default());
        lines.into_iter().map(|line| line.level).max().unwrap()
    }

    #[test]
    fn a_node_with_nft_is_well() {
        let (network, config) = well();
        assert_eq!(worst(&network, &config), Level::Ok);
    }

    #[test]
    fn nft_is_needed_for_masquerading_and_wanted_for_host_ports() {
        let (mut network, mut config) = well();
        network.nft = None;
        assert_eq!(worst(&network, &config), Level::Failed);
        config.masquerade = false;
        assert_eq!(worst(&network, &config), Level::Warning);
        config.bridge = false;
        assert_eq!(worst(&network, &config), Level::Ok);
    }

    #[test]
    fn what_stops_packets_is_told() {
        let (mut network, config) = well();
        network.dropping = vec!["ip filter FORWARD".into()];
        assert_eq!(worst(&network, &config), Level::Warning);
        network.sysctls_read_only = true;
        assert_eq!(worst(&network, &config), Level::Failed);
    }

    #[test]
    fn a_family_that_pods_want_must_be_there() {
        let (network, mut config) = well();
        config.pod_cidrs.push("fd00::/64".into());
        assert_eq!(worst(&network, &config), Level::Failed);
    }

    #[test]
    fn a_missing_module_is_named() {
        let (network, config) = well();
        let mut kernel = Kernel::default();
        kernel.modules.insert("veth", Module::Missing);
        kernel.modules.insert("bridge", Module::Unknown);
        let lines = judge(&network, &config, &kernel);
        let failed: Vec<_> = lines
            .iter()
            .filter(|line| line.level == Level::Failed)
            .collect();
        assert_eq!(failed.len(), 1);
        assert!(failed[0].message.contains("veth"));
    }
}
