//! One container of a manifest.

use std::net::IpAddr;

use super::fields::Fields;
use super::model::{Container, Port, Propagation, Protocol, PullPolicy, Resources, VolumeMount};
use super::report::{Placed, Report};
use super::tree::{Key, Node, Value};
use super::{names, quantity, refused, security};

pub(crate) fn read(node: &Node, path: String, report: &Report) -> Option<Container> {
    let fields = Fields::of(node, path, report)?;
    let name = fields.required_text("name");
    if let Some(name) = &name {
        name.check(report, |name| names::label_fault(name));
    }
    let image = fields.required_text("image");
    if let Some(image) = image
        .as_ref()
        .filter(|image| image.value.contains(char::is_whitespace))
    {
        image.wrong(report, format!("{:?} is not an image name", image.value));
    }
    let pull = fields.choice(
        "imagePullPolicy",
        &[
            ("Always", PullPolicy::Always),
            ("IfNotPresent", PullPolicy::IfNotPresent),
            ("Never", PullPolicy::Never),
        ],
    );
    let items = |name| fields.list(name).into_iter();
    let ports = items("ports")
        .filter_map(|(path, node)| port(node, path, report))
        .collect();
    let mounts = items("volumeMounts").filter_map(|(path, node)| mount(node, path, report));
    let mounts = mounts.collect();
    let env = items("env")
        .filter_map(|(path, node)| variable(node, path, report))
        .collect();
    let resources = fields
        .fields("resources")
        .map(resources)
        .unwrap_or_default();
    let working_dir = fields
        .text("workingDir")
        .filter(|dir| !dir.value.is_empty());
    if let Some(dir) = &working_dir {
        names::check_absolute(dir, report);
    }
    let command = words(&fields, "command");
    let args = words(&fields, "args");
    let security = security::container(&fields);
    let (stdin, stdin_once) = (fields.is_set("stdin"), fields.is_set("stdinOnce"));
    let tty = fields.is_set("tty");
    fields.finish(refused::CONTAINER);
    let (name, image) = (name?, image?);
    Some(Container {
        pull: pull.map_or_else(|| default_pull(&image.value), |pull| pull.value),
        name,
        image: image.value,
        command,
        args,
        working_dir: working_dir.map(|dir| dir.value).unwrap_or_default(),
        env,
        ports,
        resources,
        mounts,
        stdin,
        stdin_once,
        tty,
        security,
    })
}

/// Always for `latest` or no tag, since that name can mean something new every day.
fn default_pull(image: &str) -> PullPolicy {
    if image.contains('@') {
        return PullPolicy::IfNotPresent;
    }
    let last = image.rsplit('/').next().unwrap_or(image);
    match last.split_once(':') {
        Some((_, tag)) if tag != "latest" => PullPolicy::IfNotPresent,
        _ => PullPolicy::Always,
    }
}

fn words(fields: &Fields<'_>, name: &'static str) -> Vec<String> {
    let words = fields.texts(name);
    for word in words.iter().filter(|word| word.value.contains('\0')) {
        word.wrong(fields.report(), "must not contain NUL");
    }
    words.into_iter().map(|word| word.value).collect()
}

fn variable(node: &Node, path: String, report: &Report) -> Option<(String, String)> {
    let fields = Fields::of(node, path, report)?;
    let name = fields.required_text("name");
    let value = fields.text("value");
    if let Some(name) = name
        .as_ref()
        .filter(|name| name.value.contains(['=', '\0', '\n']))
    {
        name.wrong(
            report,
            format!("{:?} must not contain '=', NUL or newline", name.value),
        );
    }
    if let Some(value) = value.as_ref().filter(|value| value.value.contains('\0')) {
        value.wrong(report, "must not contain NUL");
    }
    fields.finish(refused::ENV);
    Some((
        name?.value,
        value.map(|value| value.value).unwrap_or_default(),
    ))
}

fn port(node: &Node, path: String, report: &Report) -> Option<Port> {
    let fields = Fields::of(node, path, report)?;
    if let Some(name) = fields.text("name") {
        if let Some(fault) = names::label_fault(&name.value) {
            name.wrong(report, fault);
        } else if name.value.len() > 15 {
            name.wrong(
                report,
                format!("{:?} is longer than 15 characters", name.value),
            );
        }
    }
    if fields.node("containerPort").is_none() {
        fields.missing("containerPort");
    }
    let number = |name| {
        let port = fields.number(name, 1..=65535, "a port")?;
        let value = i32::try_from(port.value).ok()?;
        Some(Placed {
            value,
            at: port.at,
            path: port.path,
        })
    };
    let container = number("containerPort");
    let host = number("hostPort");
    let host_ip = fields.text("hostIP").filter(|ip| !ip.value.is_empty());
    if let Some(ip) = host_ip
        .as_ref()
        .filter(|ip| ip.value.parse::<IpAddr>().is_err())
    {
        ip.wrong(report, format!("{:?} is not an IP address", ip.value));
    }
    let protocol = fields.choice(
        "protocol",
        &[
            ("TCP", Protocol::Tcp),
            ("UDP", Protocol::Udp),
            ("SCTP", Protocol::Sctp),
        ],
    );
    fields.finish(&[]);
    Some(Port {
        container: container?.value,
        host,
        host_ip: host_ip.map(|ip| ip.value).unwrap_or_default(),
        protocol: protocol.map(|protocol| protocol.value).unwrap_or_default(),
    })
}

fn mount(node: &Node, path: String, report: &Report) -> Option<VolumeMount> {
    let fields = Fields::of(node, path, report)?;
    let volume = fields.required_text("name");
    let path = fields.required_text("mountPath");
    if let Some(path) = &path {
        names::check_absolute(path, report);
    }
    let sub_path = fields.text("subPath").filter(|path| !path.value.is_empty());
    if let Some(sub_path) = &sub_path {
        names::check_relative(sub_path, report);
    }
    let read_only = fields.is_set("readOnly");
    let recursive = fields.choice(
        "recursiveReadOnly",
        &[
            ("Disabled", false),
            ("IfPossible", false),
            ("Enabled", true),
        ],
    );
    if let Some(recursive) = recursive
        .as_ref()
        .filter(|recursive| recursive.value && !read_only)
    {
        recursive.wrong(report, "Enabled needs readOnly: true");
    }
    let propagation = fields.choice(
        "mountPropagation",
        &[
            ("None", Propagation::None),
            ("HostToContainer", Propagation::HostToContainer),
            ("Bidirectional", Propagation::Bidirectional),
        ],
    );
    fields.finish(refused::MOUNT);
    Some(VolumeMount {
        volume: volume?,
        path: path?,
        sub_path,
        read_only,
        recursive_read_only: recursive.is_some_and(|recursive| recursive.value),
        propagation: propagation
            .map(|propagation| propagation.value)
            .unwrap_or_default(),
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Bound {
    Request,
    Limit,
}

fn resources(fields: Fields<'_>) -> Resources {
    let mut resources = Resources::default();
    for (key, node) in fields.entries("limits") {
        amount(&mut resources, Bound::Limit, key, node, &fields);
    }
    for (key, node) in fields.entries("requests") {
        amount(&mut resources, Bound::Request, key, node, &fields);
    }
    let pairs = [
        (resources.cpu_request, resources.cpu_limit, "cpu"),
        (resources.memory_request, resources.memory_limit, "memory"),
    ];
    for (request, limit, name) in pairs {
        if let (Some(request), Some(limit)) = (request, limit)
            && request > limit
        {
            let path = format!("{}[{name}]", fields.path("requests"));
            fields
                .report()
                .add(fields.at(), path, "is more than the limit");
        }
    }
    fields.finish(refused::RESOURCES);
    resources
}

fn amount(into: &mut Resources, bound: Bound, key: &Key, node: &Node, fields: &Fields<'_>) {
    let list = if bound == Bound::Limit {
        "limits"
    } else {
        "requests"
    };
    let path = format!("{}[{}]", fields.path(list), key.name);
    let wrong = |message: String| fields.report().add(node.at, path.clone(), message);
    let text = match &node.value {
        Value::Text(text) => text.clone(),
        Value::Int(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        other => return wrong(format!("a quantity belongs here, not {}", other.kind())),
    };
    let read = if key.name == "cpu" {
        quantity::milli(&text)
    } else {
        quantity::whole(&text)
    };
    let value = match read {
        Ok(value) => value,
        Err(fault) => return wrong(fault),
    };
    match (key.name.as_str(), bound) {
        ("cpu", Bound::Request) => into.cpu_request = Some(value),
        ("cpu", Bound::Limit) => into.cpu_limit = Some(value),
        ("memory", Bound::Request) => into.memory_request = Some(value),
        ("memory", Bound::Limit) => into.memory_limit = Some(value),
        (name, _) => match name.strip_prefix("hugepages-") {
            // Requests of huge pages always equal their limits.
            Some(_) if bound == Bound::Request => {}
            Some(size) => into
                .huge_pages
                .push((size.to_owned(), value.unsigned_abs())),
            None => {
                let message = "only a kubelet can serve this; cpu, memory and hugepages-SIZE are \
                               served here";
                fields.report().add(key.at, path.clone(), message);
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pull_policy_follows_the_tag() {
        for image in [
            "web",
            "web:latest",
            "localhost:5000/web",
            "a.b/c/web:latest",
        ] {
            assert_eq!(default_pull(image), PullPolicy::Always, "{image}");
        }
        for image in [
            "web:1",
            "localhost:5000/web:1",
            "web@sha256:00",
            "web:latest@sha256:00",
        ] {
            assert_eq!(default_pull(image), PullPolicy::IfNotPresent, "{image}");
        }
    }
}
