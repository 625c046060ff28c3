//! From a YAML document to a [`Pod`].

use std::collections::BTreeMap;

use super::fields::Fields;
use super::model::{Container, Dns, DnsPolicy, Pod};
use super::report::{Placed, Report};
use super::tree::Node;
use super::{container, names, refused, security, volume};

/// Reads one document; what is wrong with it is in the report.
pub(crate) fn read(node: &Node, report: &Report) -> Option<Pod> {
    let top = Fields::of(node, "", report)?;
    if !is_pod(&top) {
        return None;
    }
    let spec = top.fields("spec");
    if spec.is_none() && top.node("spec").is_none() {
        top.missing("spec");
    }
    let identity = read_metadata(&top);
    top.finish(refused::TOP);
    let (identity, spec) = (identity?, spec?);
    let pod = read_spec(identity, &spec);
    spec.finish(refused::SPEC);
    pod
}

fn is_pod(top: &Fields<'_>) -> bool {
    let version = top.required_text("apiVersion");
    let Some(kind) = top.required_text("kind") else {
        return false;
    };
    if kind.value != "Pod" {
        let message = format!("carpel makes Pods; a {} needs a cluster", kind.value);
        kind.wrong(top.report(), message);
        return false;
    }
    if let Some(version) = version.filter(|version| version.value != "v1") {
        version.wrong(
            top.report(),
            format!("{:?} is not v1, the version of Pod", version.value),
        );
    }
    true
}

struct Metadata {
    name: Placed<String>,
    namespace: String,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

fn read_metadata(top: &Fields<'_>) -> Option<Metadata> {
    if top.node("metadata").is_none() {
        top.missing("metadata");
        return None;
    }
    let metadata = top.fields("metadata")?;
    let report = metadata.report();
    let name = metadata.required_text("name");
    if let Some(name) = &name {
        name.check(report, |name| names::subdomain_fault(name));
    }
    let namespace = metadata.text("namespace");
    if let Some(namespace) = &namespace {
        namespace.check(report, |namespace| names::label_fault(namespace));
    }
    let labels = metadata.text_map("labels");
    labels
        .iter()
        .for_each(|(key, value)| names::check_label(key, value, report));
    let annotations = metadata.text_map("annotations");
    annotations
        .iter()
        .for_each(|(key, value)| names::check_key(key, value, report));
    metadata.finish(refused::METADATA);
    Some(Metadata {
        name: name?,
        namespace: namespace.map_or_else(|| "default".to_owned(), |namespace| namespace.value),
        labels: values(labels),
        annotations: values(annotations),
    })
}

fn values(map: BTreeMap<String, Placed<String>>) -> BTreeMap<String, String> {
    map.into_iter()
        .map(|(key, value)| (key, value.value))
        .collect()
}

fn read_spec(metadata: Metadata, spec: &Fields<'_>) -> Option<Pod> {
    check_fixed(spec);
    let init_containers = containers(spec, "initContainers");
    let regular = containers(spec, "containers");
    if spec.node("containers").is_none() {
        spec.missing("containers");
    } else if regular.is_empty() && spec.list("containers").is_empty() {
        spec.report().add(
            spec.at(),
            spec.path("containers"),
            "at least one container is needed",
        );
    }
    let volumes = spec.list("volumes").into_iter();
    let volumes = volumes.filter_map(|(path, node)| volume::read(node, path, spec.report()));
    let host_network = spec.is_set("hostNetwork");
    Some(Pod {
        hostname: hostname(spec, &metadata, host_network),
        name: metadata.name,
        namespace: metadata.namespace,
        labels: metadata.labels,
        annotations: metadata.annotations,
        host_network,
        host_pid: spec.is_set("hostPID"),
        host_ipc: spec.is_set("hostIPC"),
        share_processes: spec.is_set("shareProcessNamespace"),
        grace_seconds: spec
            .number(
                "terminationGracePeriodSeconds",
                0..=i64::from(i32::MAX),
                "a number of seconds",
            )
            .map(|seconds| seconds.value),
        dns: dns(spec),
        security: security::pod(spec),
        volumes: volumes.collect(),
        init_containers,
        containers: regular,
    })
}

fn containers(spec: &Fields<'_>, name: &'static str) -> Vec<Container> {
    let items = spec.list(name).into_iter();
    items
        .filter_map(|(path, node)| container::read(node, path, spec.report()))
        .collect()
}

/// Fields that carpel serves in one of their values only.
fn check_fixed(spec: &Fields<'_>) {
    let report = spec.report();
    if let Some(policy) = spec
        .text("restartPolicy")
        .filter(|policy| policy.value != "Never")
    {
        let message = format!(
            "{:?}: only a kubelet restarts containers; use Never or leave the field out",
            policy.value
        );
        policy.wrong(report, message);
    }
    let only = |name: &'static str, wanted: bool, message: &str| {
        if let Some(flag) = spec.flag(name).filter(|flag| flag.value != wanted) {
            flag.wrong(report, message);
        }
    };
    only(
        "automountServiceAccountToken",
        false,
        "only a cluster has service accounts; use false or leave the field out",
    );
    only(
        "enableServiceLinks",
        false,
        "only a cluster has services; use false or leave the field out",
    );
    only(
        "hostUsers",
        true,
        "a kubelet allots the ids of a user namespace; use true or leave the field out",
    );
    if let Some(os) = spec.fields("os") {
        if let Some(name) = os
            .required_text("name")
            .filter(|name| name.value != "linux")
        {
            name.wrong(report, format!("{:?} is not linux", name.value));
        }
        os.finish(&[]);
    }
}

/// The pod's own name, unless it is on the host's network, where the host's name holds.
fn hostname(spec: &Fields<'_>, metadata: &Metadata, host_network: bool) -> Option<String> {
    let given = spec.text("hostname");
    if let Some(given) = given {
        if host_network {
            given.wrong(
                spec.report(),
                "a pod on the host's network has the host's name",
            );
        } else {
            given.check(spec.report(), |name| names::label_fault(name));
        }
        return Some(given.value);
    }
    if host_network {
        return None;
    }
    let cut: String = metadata.name.value.chars().take(63).collect();
    Some(cut.trim_end_matches(['-', '.']).to_owned())
}

fn dns(spec: &Fields<'_>) -> Dns {
    let report = spec.report();
    let policy = spec.text("dnsPolicy");
    let kind = match policy.as_ref().map(|policy| policy.value.as_str()) {
        None | Some("Default") => DnsPolicy::Default,
        Some("None") => DnsPolicy::None,
        Some(other) => {
            if let Some(policy) = &policy {
                let message = format!("{other:?} needs a cluster's DNS; use Default or None");
                policy.wrong(report, message);
            }
            DnsPolicy::Default
        }
    };
    let mut dns = spec.fields("dnsConfig").map(dns_config).unwrap_or_default();
    dns.policy = kind;
    if let Some(policy) = policy.filter(|_| kind == DnsPolicy::None && dns.servers.is_empty()) {
        policy.wrong(report, "None needs dnsConfig.nameservers");
    }
    dns
}

fn dns_config(config: Fields<'_>) -> Dns {
    let report = config.report();
    let servers = config.texts("nameservers");
    for server in &servers {
        if server.value.parse::<std::net::IpAddr>().is_err() {
            server.wrong(report, format!("{:?} is not an IP address", server.value));
        }
    }
    let searches = config.texts("searches");
    for search in &searches {
        if search.value.is_empty() || search.value.contains(char::is_whitespace) {
            search.wrong(report, format!("{:?} is not a domain", search.value));
        }
    }
    let mut options = Vec::new();
    for (path, node) in config.list("options") {
        let Some(option) = Fields::of(node, path, report) else {
            continue;
        };
        let value = option.text("value");
        if let Some(name) = option.required_text("name") {
            let text = match value {
                Some(value) if !value.value.is_empty() => format!("{}:{}", name.value, value.value),
                _ => name.value.clone(),
            };
            if text.contains(char::is_whitespace) {
                name.wrong(report, format!("{text:?} must not contain blanks"));
            }
            options.push(text);
        }
        option.finish(&[]);
    }
    config.finish(&[]);
    let plain = |texts: Vec<Placed<String>>| texts.into_iter().map(|text| text.value).collect();
    Dns {
        policy: DnsPolicy::default(),
        servers: plain(servers),
        searches: plain(searches),
        options,
    }
}
