//! nft, forwarding, and who else filters.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::cgroups::is_read_only;
use crate::doctor::facts::Network;

/// Looked in after PATH, as carpeld does.
const DIRECTORIES: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/local/sbin"];

pub(super) fn look() -> Network {
    let nft = find();
    let read = |path: &str| Some(fs::read_to_string(path).ok()?.trim().to_owned());
    let mut network = Network {
        ip_forward: read("/proc/sys/net/ipv4/ip_forward"),
        ipv6_forward: read("/proc/sys/net/ipv6/conf/all/forwarding"),
        sysctls_read_only: is_read_only(Path::new("/proc/sys/net")),
        ..Network::default()
    };
    if let Some(nft) = &nft {
        match Command::new(nft).args(["-j", "list", "chains"]).output() {
            Ok(output) if output.status.success() => {
                network.dropping = dropping(&String::from_utf8_lossy(&output.stdout));
            }
            Ok(output) => {
                let told = String::from_utf8_lossy(&output.stderr);
                network.nft_fails = Some(told.lines().next().unwrap_or("no message").to_owned());
            }
            Err(error) => network.nft_fails = Some(error.to_string()),
        }
    }
    network.nft = nft;
    network
}

fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain(DIRECTORIES.map(PathBuf::from));
    directories
        .map(|dir| dir.join("nft"))
        .find(|place| place.is_file())
}

fn dropping(listed: &str) -> Vec<String> {
    let value: Value = serde_json::from_str(listed).unwrap_or_default();
    let objects = value["nftables"].as_array().into_iter().flatten();
    let chains = objects.map(|object| &object["chain"]);
    let dropping = chains.filter(|chain| chain["hook"] == "forward" && chain["policy"] == "drop");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    dropping
        .map(|chain| {
            ["family", "table", "name"]
                .map(|key| text(&chain[key]))
                .join(" ")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::dropping;

    #[test]
    fn only_forward_chains_that_drop_are_told() {
        let listed = r#"{"nftables": [{"metainfo": {}},
            {"chain": {"family": "ip", "table": "filter", "name": "FORWARD", "hook": "forward", "policy": "drop"}},
            {"chain": {"family": "ip", "table": "filter", "name": "INPUT", "hook": "input", "policy": "drop"}},
            {"chain": {"family": "ip6", "table": "filter", "name": "FORWARD", "hook": "forward", "policy": "accept"}}]}"#;
        assert_eq!(dropping(listed), ["ip filter FORWARD"]);
        assert!(dropping("").is_empty());
    }
}
