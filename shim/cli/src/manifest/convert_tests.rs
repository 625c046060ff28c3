use super::*;
use crate::manifest::load;

fn pod(spec: &str) -> Pod {
    let text = format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\n  namespace: shop\n  labels: {{app: \
         web}}\n  annotations: {{note: \"a\"}}\nspec:\n{spec}"
    );
    load(&text).unwrap().remove(0)
}

fn facts() -> Facts {
    Facts {
        uid: "u-1".to_owned(),
        log_directory: PathBuf::from("/logs"),
        volumes: BTreeMap::from([("data".to_owned(), PathBuf::from("/vol/data"))]),
        sub_paths: BTreeMap::from([(
            ("data".to_owned(), "a/b".to_owned()),
            PathBuf::from("/vol/data/a/b"),
        )]),
        host_dns: Dns {
            servers: vec!["10.0.0.1".to_owned()],
            ..Dns::default()
        },
        memory: 1 << 30,
    }
}

fn image() -> ImageFacts {
    ImageFacts {
        id: "sha256:1".to_owned(),
        uid: None,
        username: String::new(),
    }
}

fn context(spec: &str, image: &ImageFacts) -> cri::LinuxContainerSecurityContext {
    let pod = pod(spec);
    let config = container(&pod, &pod.containers[0], &facts(), image);
    config.linux.unwrap().security_context.unwrap()
}

const ONE: &str = "  containers: [{name: c, image: \"i:1\"}]\n";

#[test]
fn the_sandbox_of_a_small_pod() {
    let config = sandbox(&pod(ONE), &facts());
    let metadata = config.metadata.unwrap();
    assert_eq!(
        (metadata.name.as_str(), metadata.namespace.as_str()),
        ("web", "shop")
    );
    assert_eq!(metadata.uid, "u-1");
    assert_eq!(config.hostname, "web");
    assert_eq!(config.log_directory, "/logs");
    assert_eq!(config.labels["app"], "web");
    assert_eq!(config.labels[keys::POD_NAMESPACE], "shop");
    assert_eq!(config.annotations["note"], "a");
    assert_eq!(config.dns_config, None);
    let security = config.linux.unwrap().security_context.unwrap();
    let namespaces = security.namespace_options.unwrap();
    assert_eq!(namespaces.network(), cri::NamespaceMode::Pod);
    assert_eq!(namespaces.pid(), cri::NamespaceMode::Container);
}

#[test]
fn namespaces_of_the_host_and_of_the_pod() {
    let modes = |field: &str| {
        let config = sandbox(&pod(&format!("{ONE}  {field}\n")), &facts());
        config
            .linux
            .unwrap()
            .security_context
            .unwrap()
            .namespace_options
            .unwrap()
    };
    assert_eq!(
        modes("hostNetwork: true").network(),
        cri::NamespaceMode::Node
    );
    assert_eq!(modes("hostPID: true").pid(), cri::NamespaceMode::Node);
    assert_eq!(modes("hostIPC: true").ipc(), cri::NamespaceMode::Node);
    assert_eq!(
        modes("shareProcessNamespace: true").pid(),
        cri::NamespaceMode::Pod
    );
    let host = sandbox(&pod(&format!("{ONE}  hostNetwork: true\n")), &facts());
    assert_eq!(host.hostname, "");
}

#[test]
fn ports_are_mapped_unless_the_network_is_the_hosts() {
    let spec = "  containers: [{name: c, image: i, ports: [{containerPort: 80, hostPort: 80, \
                hostIP: 127.0.0.1}, {containerPort: 53, protocol: UDP}]}]\n";
    let ports = sandbox(&pod(spec), &facts()).port_mappings;
    assert_eq!((ports[0].container_port, ports[0].host_port), (80, 80));
    assert_eq!(ports[0].host_ip, "127.0.0.1");
    assert_eq!(
        (ports[1].protocol(), ports[1].host_port),
        (cri::Protocol::Udp, 0)
    );
    let host = sandbox(&pod(&format!("{spec}  hostNetwork: true\n")), &facts());
    assert!(host.port_mappings.is_empty());
}

#[test]
fn dns_of_the_pod_alone_or_beside_the_hosts() {
    let dns = |policy: &str| {
        let spec = format!(
            "{ONE}  dnsPolicy: {policy}\n  dnsConfig: {{nameservers: [10.9.9.9, 10.0.0.1], \
             searches: [x.y], options: [{{name: ndots, value: \"2\"}}, {{name: rotate}}]}}\n"
        );
        sandbox(&pod(&spec), &facts()).dns_config.unwrap()
    };
    assert_eq!(dns("None").servers, ["10.9.9.9", "10.0.0.1"]);
    assert_eq!(dns("Default").servers, ["10.0.0.1", "10.9.9.9"]);
    assert_eq!(dns("Default").searches, ["x.y"]);
    assert_eq!(dns("Default").options, ["ndots:2", "rotate"]);
}

#[test]
fn a_container_with_everything() {
    let pod = pod(
        "  terminationGracePeriodSeconds: 7\n  volumes: [{name: data, emptyDir: {}}]\n  \
                   containers:\n  - name: c\n    image: i:1\n    command: [run, \"$(PORT)\"]\n    \
                   args: [\"$(NO)\"]\n    workingDir: /w\n    env: [{name: PORT, value: \"80\"}, \
                   {name: URL, value: \"h:$(PORT)\"}]\n    stdin: true\n    tty: true\n    \
                   resources: {limits: {memory: 64Mi}}\n    volumeMounts:\n    - {name: data, \
                   mountPath: /d, readOnly: true, mountPropagation: HostToContainer}\n    - {name: \
                   data, mountPath: /e, subPath: a/b}\n",
    );
    let config = container(&pod, &pod.containers[0], &facts(), &image());
    assert_eq!(config.command, ["run", "80"]);
    assert_eq!(config.args, ["$(NO)"]);
    assert_eq!(config.working_dir, "/w");
    assert_eq!(config.envs[1].value, b"h:80");
    assert_eq!(config.log_path, "c/0.log");
    assert!(config.stdin && config.tty && !config.stdin_once);
    assert_eq!(config.image.as_ref().unwrap().image, "sha256:1");
    assert_eq!(config.image.unwrap().user_specified_image, "i:1");
    assert_eq!(config.labels[keys::CONTAINER_NAME], "c");
    assert_eq!(config.annotations[keys::GRACE], "7");
    assert!(!config.annotations.contains_key(keys::INIT));
    let mounts = &config.mounts;
    assert_eq!(
        (mounts[0].host_path.as_str(), mounts[0].readonly),
        ("/vol/data", true)
    );
    assert_eq!(
        mounts[0].propagation(),
        cri::MountPropagation::PropagationHostToContainer
    );
    assert_eq!(
        (mounts[1].host_path.as_str(), mounts[1].readonly),
        ("/vol/data/a/b", false)
    );
    let resources = config.linux.unwrap().resources.unwrap();
    assert_eq!(resources.memory_limit_in_bytes, 64 << 20);
}

#[test]
fn init_containers_are_marked() {
    let pod =
        pod("  initContainers: [{name: first, image: i}]\n  containers: [{name: c, image: i}]\n");
    let config = container(&pod, &pod.init_containers[0], &facts(), &image());
    assert_eq!(config.annotations[keys::INIT], "true");
}

#[test]
fn confinement_is_on_unless_taken_off() {
    let plain = context(ONE, &image());
    assert_eq!(plain.seccomp, Some(profile(&Profile::RuntimeDefault)));
    assert!(plain.masked_paths.iter().any(|path| path == "/proc/kcore"));
    assert!(plain.readonly_paths.iter().any(|path| path == "/proc/sys"));
    assert!(!plain.no_new_privs && plain.run_as_user.is_none());
    let of = |field: &str| {
        context(
            &format!("  containers: [{{name: c, image: i, securityContext: {{{field}}}}}]\n"),
            &image(),
        )
    };
    let privileged = of("privileged: true");
    assert!(privileged.privileged && privileged.masked_paths.is_empty());
    assert_eq!(privileged.seccomp, None);
    assert!(of("allowPrivilegeEscalation: false").no_new_privs);
    assert!(of("readOnlyRootFilesystem: true").readonly_rootfs);
    assert!(of("procMount: Unmasked").masked_paths.is_empty());
    let caps = of("capabilities: {add: [NET_ADMIN], drop: [ALL]}")
        .capabilities
        .unwrap();
    assert_eq!(
        (
            caps.add_capabilities[0].as_str(),
            caps.drop_capabilities.len()
        ),
        ("NET_ADMIN", 1)
    );
    let local = of("seccompProfile: {type: Localhost, localhostProfile: p.json}")
        .seccomp
        .unwrap();
    assert_eq!(local.localhost_ref, "p.json");
}

#[test]
fn the_user_is_the_containers_then_the_pods_then_the_images() {
    let image = ImageFacts {
        uid: Some(7),
        ..image()
    };
    let user = |spec: &str| {
        let security = context(spec, &image);
        let value = |id: Option<cri::Int64Value>| id.map(|id| id.value);
        (
            value(security.run_as_user),
            value(security.run_as_group),
            security.run_as_username,
        )
    };
    let both = "  securityContext: {runAsUser: 1, runAsGroup: 2}\n  containers: [{name: c, image: \
                i, securityContext: {runAsUser: 3}}]\n";
    assert_eq!(user(both), (Some(3), Some(2), String::new()));
    assert_eq!(user(ONE), (Some(7), None, String::new()));
    let named = ImageFacts {
        username: "www".to_owned(),
        ..ImageFacts::default()
    };
    assert_eq!(context(ONE, &named).run_as_username, "www");
    let given = "  securityContext: {runAsUser: 1}\n  containers: [{name: c, image: i}]\n";
    assert_eq!(context(given, &named).run_as_username, "");
}
