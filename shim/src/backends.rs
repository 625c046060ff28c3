//! Opens the image engine and the network driver that the configuration names.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use carpel_images::registry::{HostConfig, KeychainConfig, Mirror, RegistryConfig, Timeouts};
use carpel_images::{Store, StoreConfig};
use carpel_network::{BridgeConfig, BridgeDriver, StaticRoute};

use crate::config::{Bridge, CgroupDriver, Config, Driver, Registry, quoted};
use crate::pod::{self, Places};
use crate::systemd::Systemd;

pub(crate) async fn store(config: &Config) -> anyhow::Result<Store> {
    let images = &config.images;
    let mut store = StoreConfig::new(config.paths.root.join("images"));
    let containers = &config.paths.containers;
    store.containers = (!containers.as_os_str().is_empty()).then(|| containers.clone());
    store.registries = registries(config);
    store.pinned.clone_from(&images.pinned);
    store.parallel_layers = images.parallel_layers;
    store.partial_keep = Duration::from_secs(images.partial_seconds);
    store.pull_limit = Duration::from_secs(images.pull_seconds);
    store.limits.bytes = images.max_layer_bytes;
    store.limits.entries = images.max_layer_entries;
    store.limits.ratio = images.max_layer_ratio;
    store.limits.layers = images.max_layers;
    store.limits.image_bytes = images.max_image_bytes;
    store.limits.compressed = images.max_image_compressed_bytes;
    Store::open(store).await.context("open the image store")
}

pub(crate) fn bridge(config: &Config) -> anyhow::Result<BridgeDriver> {
    BridgeDriver::open(bridge_config(config)?).context("open the bridge driver")
}

/// None when another driver connects pods.
pub(crate) fn bridge_if_used(config: &Config) -> anyhow::Result<Option<BridgeConfig>> {
    match config.network.driver {
        Driver::Bridge => bridge_config(config).map(Some),
        Driver::None => Ok(None),
    }
}

/// Of the bridge driver; complaints begin with the key they are about.
pub(crate) fn bridge_config(config: &Config) -> anyhow::Result<BridgeConfig> {
    let Bridge {
        name,
        pod_cidrs,
        mtu,
        masquerade,
        nft_table,
        routes,
    } = &config.network.bridge;
    let mut bridge = BridgeConfig::new(config.paths.root.join("network"));
    bridge.bridge.clone_from(name);
    bridge.table.clone_from(nft_table);
    bridge.mtu = *mtu;
    bridge.masquerade = *masquerade;
    bridge.pod_cidrs = pod_cidrs
        .iter()
        .map(|cidr| {
            cidr.parse()
                .with_context(|| format!("network.bridge.pod_cidrs: {cidr:?}"))
        })
        .collect::<anyhow::Result<_>>()?;
    bridge.routes = routes
        .iter()
        .map(|route| {
            let dst = route
                .to
                .parse()
                .with_context(|| format!("network.bridge.routes: to: {:?}", route.to))?;
            let via = route
                .via
                .parse()
                .with_context(|| format!("network.bridge.routes: via: {:?}", route.via))?;
            Ok(StaticRoute { dst, via })
        })
        .collect::<anyhow::Result<_>>()?;
    bridge.validate().map_err(|error| {
        let key = match &error {
            carpel_network::Error::Invalid { what, .. } => key_of(what),
            _ => "",
        };
        anyhow::anyhow!("network.bridge{key}: {error}")
    })?;
    Ok(bridge)
}

fn key_of(what: &str) -> &'static str {
    match what {
        "bridge" => ".name",
        "nftables table" => ".nft_table",
        "pod CIDR" => ".pod_cidrs",
        "mtu" => ".mtu",
        "route" => ".routes",
        _ => "",
    }
}

/// Whether registries can be reached as the configuration says.
pub(crate) fn check_registries(config: &Config) -> anyhow::Result<()> {
    let all = registries(config);
    for (host, of_host) in &all.hosts {
        let one = RegistryConfig {
            hosts: BTreeMap::from([(host.clone(), of_host.clone())]),
            ..all.clone()
        };
        if let Err(error) = carpel_images::registry::Registry::new(one) {
            anyhow::bail!("registries.{}.mirrors: {error}", quoted(host));
        }
    }
    Ok(())
}

/// Where pods' cgroups are, and who makes them.
pub(crate) fn places(config: &Config) -> anyhow::Result<Places> {
    let cgroup = &config.cgroup;
    let systemd = match cgroup.driver {
        CgroupDriver::Cgroupfs => false,
        CgroupDriver::Systemd => true,
        CgroupDriver::Auto => Path::new("/run/systemd/system").is_dir(),
    };
    let driver = if systemd {
        pod::CgroupDriver::Systemd(Arc::new(Systemd::new(&cgroup.systemd_socket)))
    } else {
        pod::CgroupDriver::Cgroupfs
    };
    Ok(Places::new(driver, &cgroup.root)?)
}

/// The tables `[registries]`, and of `[images]` what concerns registries.
pub(crate) fn registries(config: &Config) -> RegistryConfig {
    let images = &config.images;
    RegistryConfig {
        hosts: config
            .registries
            .iter()
            .map(|(host, registry)| (host.clone(), host_config(registry)))
            .collect(),
        timeouts: Timeouts {
            connect: Duration::from_secs(images.connect_seconds),
            stall: Duration::from_secs(images.stall_seconds),
            stall_bytes: images.stall_bytes,
            ..Timeouts::default()
        },
        keychain: KeychainConfig {
            files: images.auth_files.clone(),
            helper_dirs: images.helper_dirs.clone(),
            helper_timeout: Duration::from_secs(images.helper_seconds),
        },
        max_manifest_bytes: images.max_manifest_bytes,
        max_concurrent_layers: images.parallel_layers,
        ..RegistryConfig::default()
    }
}

fn host_config(registry: &Registry) -> HostConfig {
    let Registry {
        mirrors,
        insecure,
        ca_file,
        client_cert_file,
        client_key_file,
        credential_helper,
        auth_file,
    } = registry;
    HostConfig {
        mirrors: mirrors.iter().map(Mirror::new).collect(),
        insecure: *insecure,
        ca_file: ca_file.clone(),
        client_identity: client_cert_file.clone().zip(client_key_file.clone()),
        credential_helper: credential_helper.clone(),
        auth_file: auth_file.clone(),
        server: None,
    }
}
