//! `securityContext` of a pod and of a container.

use std::collections::BTreeMap;

use super::fields::Fields;
use super::model::{ContainerSecurity, Identity, PodSecurity, Profile, Profiles, SeLinux};
use super::refused;

/// The highest id that Kubernetes takes.
const MAX_ID: i64 = i32::MAX as i64;

pub(crate) fn pod(spec: &Fields<'_>) -> PodSecurity {
    let Some(fields) = spec.fields("securityContext") else {
        return PodSecurity::default();
    };
    let security = PodSecurity {
        identity: identity(&fields),
        supplemental_groups: groups(&fields),
        strict_groups: fields
            .choice(
                "supplementalGroupsPolicy",
                &[("Merge", false), ("Strict", true)],
            )
            .is_some_and(|strict| strict.value),
        sysctls: sysctls(&fields),
        profiles: profiles(&fields),
    };
    fields.finish(refused::POD_SECURITY);
    security
}

pub(crate) fn container(container: &Fields<'_>) -> ContainerSecurity {
    let Some(fields) = container.fields("securityContext") else {
        return ContainerSecurity::default();
    };
    let (add, drop) = fields
        .fields("capabilities")
        .map(capabilities)
        .unwrap_or_default();
    let privileged = fields.is_set("privileged");
    let escalation = fields.flag("allowPrivilegeEscalation");
    if let Some(escalation) = escalation.as_ref().filter(|escalation| !escalation.value) {
        let all = ["SYS_ADMIN", "CAP_SYS_ADMIN", "ALL"];
        if privileged || add.iter().any(|name| all.contains(&name.as_str())) {
            escalation.wrong(
                fields.report(),
                "false does not go with privileged or with the capability SYS_ADMIN",
            );
        }
    }
    let security = ContainerSecurity {
        identity: identity(&fields),
        privileged,
        read_only_root: fields.is_set("readOnlyRootFilesystem"),
        allow_escalation: escalation.map(|escalation| escalation.value),
        add_capabilities: add,
        drop_capabilities: drop,
        unmasked_proc: fields
            .choice("procMount", &[("Default", false), ("Unmasked", true)])
            .is_some_and(|unmasked| unmasked.value),
        profiles: profiles(&fields),
    };
    fields.finish(refused::CONTAINER_SECURITY);
    security
}

fn identity(fields: &Fields<'_>) -> Identity {
    let user = fields.number("runAsUser", 0..=MAX_ID, "a user id");
    let non_root = fields.flag("runAsNonRoot").map(|flag| flag.value);
    if let Some(user) = user
        .as_ref()
        .filter(|user| user.value == 0 && non_root == Some(true))
    {
        user.wrong(fields.report(), "0 is root, which runAsNonRoot forbids");
    }
    Identity {
        user: user.map(|user| user.value),
        group: fields
            .number("runAsGroup", 0..=MAX_ID, "a group id")
            .map(|group| group.value),
        non_root,
    }
}

fn groups(fields: &Fields<'_>) -> Vec<i64> {
    let mut groups = Vec::new();
    for (path, node) in fields.list("supplementalGroups") {
        match node.value {
            super::tree::Value::Int(id) if (0..=i128::from(MAX_ID)).contains(&id) => {
                groups.extend(i64::try_from(id));
            }
            _ => fields.report().add(
                node.at,
                path,
                format!("a group id (0-{MAX_ID}) belongs here"),
            ),
        }
    }
    groups
}

fn sysctls(fields: &Fields<'_>) -> BTreeMap<String, String> {
    let mut sysctls = BTreeMap::new();
    for (path, node) in fields.list("sysctls") {
        let Some(item) = Fields::of(node, path, fields.report()) else {
            continue;
        };
        let name = item.required_text("name");
        let value = item.required_text("value");
        item.finish(&[]);
        let (Some(name), Some(value)) = (name, value) else {
            continue;
        };
        if name.value.contains("..") || name.value.contains(char::is_whitespace) {
            name.wrong(fields.report(), format!("{:?} is not a sysctl", name.value));
        }
        if sysctls.insert(name.value.clone(), value.value).is_some() {
            name.wrong(fields.report(), format!("{:?} is set twice", name.value));
        }
    }
    sysctls
}

fn capabilities(fields: Fields<'_>) -> (Vec<String>, Vec<String>) {
    let read = |list: &'static str| {
        let names = fields.texts(list);
        for name in &names {
            let fits = |c: char| c.is_ascii_uppercase() || c == '_' || c.is_ascii_digit();
            if name.value.is_empty() || !name.value.chars().all(fits) {
                let message = format!("{:?} is not a capability such as NET_ADMIN", name.value);
                name.wrong(fields.report(), message);
            }
        }
        names.into_iter().map(|name| name.value).collect()
    };
    let both = (read("add"), read("drop"));
    fields.finish(&[]);
    both
}

fn profiles(fields: &Fields<'_>) -> Profiles {
    let selinux = fields.fields("seLinuxOptions").map(|options| {
        let read = |name| {
            options
                .text(name)
                .map(|text| text.value)
                .unwrap_or_default()
        };
        let selinux = SeLinux {
            user: read("user"),
            role: read("role"),
            kind: read("type"),
            level: read("level"),
        };
        options.finish(&[]);
        selinux
    });
    Profiles {
        seccomp: fields.fields("seccompProfile").and_then(profile),
        apparmor: fields.fields("appArmorProfile").and_then(profile),
        selinux,
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    RuntimeDefault,
    Unconfined,
    Localhost,
}

fn profile(fields: Fields<'_>) -> Option<Profile> {
    if fields.node("type").is_none() {
        fields.missing("type");
    }
    let kind = fields.choice(
        "type",
        &[
            ("RuntimeDefault", Kind::RuntimeDefault),
            ("Unconfined", Kind::Unconfined),
            ("Localhost", Kind::Localhost),
        ],
    );
    let file = fields.text("localhostProfile");
    let profile = match kind.map(|kind| kind.value) {
        Some(Kind::Localhost) => match &file {
            Some(file) => Some(Profile::Localhost(file.value.clone())),
            None => {
                fields.missing("localhostProfile");
                None
            }
        },
        Some(Kind::RuntimeDefault) => Some(Profile::RuntimeDefault),
        Some(Kind::Unconfined) => Some(Profile::Unconfined),
        None => None,
    };
    if let Some(file) = file.filter(|_| !matches!(profile, Some(Profile::Localhost(_)))) {
        file.wrong(fields.report(), "goes with type Localhost only");
    }
    fields.finish(&[]);
    profile
}
