//! Reads a whole manifest and checks what one field alone does not show.

use std::collections::HashSet;

use super::model::{Container, Pod, Port, Propagation};
use super::pod;
use super::report::{Mistake, Placed, Report};
use super::tree::{self, At};

/// The pods of a manifest, or everything that is wrong with it.
pub(crate) fn load(text: &str) -> Result<Vec<Pod>, Vec<Mistake>> {
    let report = Report::default();
    let nodes = match tree::documents(text) {
        Ok(nodes) => nodes,
        Err(malformed) => {
            report.add(malformed.at, "", malformed.message);
            return Err(report.into_mistakes());
        }
    };
    if nodes.is_empty() {
        report.add(At::default(), "", "there is no Pod in it");
    }
    let pods: Vec<Pod> = nodes
        .iter()
        .filter_map(|node| pod::read(node, &report))
        .collect();
    pods.iter().for_each(|pod| check(pod, &report));
    check_together(&pods, &report);
    let mistakes = report.into_mistakes();
    if mistakes.is_empty() {
        Ok(pods)
    } else {
        Err(mistakes)
    }
}

fn check(pod: &Pod, report: &Report) {
    unique(
        pod.all_containers().map(|container| &container.name),
        report,
    );
    unique(pod.volumes.iter().map(|volume| &volume.name), report);
    if pod.host_pid && pod.share_processes {
        pod.name.wrong(
            report,
            "hostPID and shareProcessNamespace do not go together",
        );
    }
    for container in pod.all_containers() {
        check_mounts(pod, container, report);
        for port in container.ports.iter().filter(|_| pod.host_network) {
            let Some(host) = port
                .host
                .as_ref()
                .filter(|host| host.value != port.container)
            else {
                continue;
            };
            let message = format!(
                "{} must equal containerPort {} on the host's network",
                host.value, port.container
            );
            host.wrong(report, message);
        }
    }
}

fn unique<'a>(names: impl Iterator<Item = &'a Placed<String>>, report: &Report) {
    let mut seen = HashSet::new();
    for name in names {
        if !seen.insert(name.value.as_str()) {
            name.wrong(report, format!("{:?} is there twice", name.value));
        }
    }
}

fn check_mounts(pod: &Pod, container: &Container, report: &Report) {
    unique(container.mounts.iter().map(|mount| &mount.path), report);
    for mount in &container.mounts {
        if !pod
            .volumes
            .iter()
            .any(|volume| volume.name.value == mount.volume.value)
        {
            let message = format!("there is no volume {:?} in this pod", mount.volume.value);
            mount.volume.wrong(report, message);
        }
        if mount.propagation == Propagation::Bidirectional && !container.security.privileged {
            let message = "mountPropagation Bidirectional needs a privileged container";
            mount.path.wrong(report, message);
        }
    }
}

/// Pods of one manifest must differ in name and not fight over host ports.
fn check_together(pods: &[Pod], report: &Report) {
    let mut names = HashSet::new();
    for pod in pods {
        if !names.insert((pod.namespace.as_str(), pod.name.value.as_str())) {
            pod.name.wrong(
                report,
                format!("{}/{} is there twice", pod.namespace, pod.name.value),
            );
        }
    }
    let ports = pods
        .iter()
        .flat_map(Pod::all_containers)
        .flat_map(|container| &container.ports);
    let mut taken: Vec<(&Port, i32)> = Vec::new();
    for port in ports {
        let Some(host) = &port.host else { continue };
        if taken
            .iter()
            .any(|(other, number)| *number == host.value && overlap(port, other))
        {
            host.wrong(
                report,
                format!("{} is taken by another container here", host.value),
            );
        }
        taken.push((port, host.value));
    }
}

fn overlap(one: &Port, other: &Port) -> bool {
    let any = |ip: &str| matches!(ip, "" | "0.0.0.0" | "::");
    one.protocol == other.protocol
        && (one.host_ip == other.host_ip || any(&one.host_ip) || any(&other.host_ip))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistakes(text: &str) -> Vec<String> {
        match load(text) {
            Ok(pods) => panic!("{} pods were read", pods.len()),
            Err(mistakes) => mistakes.iter().map(ToString::to_string).collect(),
        }
    }

    /// A pod whose spec is `spec` below a name.
    fn pod(spec: &str) -> String {
        format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: web}}\nspec:\n{spec}")
    }

    const ONE: &str = "  containers: [{name: c, image: \"i:1\"}]\n";

    #[test]
    fn a_small_pod_is_read() {
        let pods = load(&pod(ONE)).unwrap();
        assert_eq!(pods[0].name.value, "web");
        assert_eq!(pods[0].namespace, "default");
        assert_eq!(pods[0].hostname.as_deref(), Some("web"));
        assert_eq!(pods[0].containers[0].image, "i:1");
    }

    #[test]
    fn every_mistake_has_its_line_and_all_are_told_at_once() {
        let text = pod(
            "  containers:\n  - name: Web\n    image: i\n    ports:\n    - containerPort: 80\n      \
             hostPort: 99999\n    env:\n    - name: A\n      value: 1\n    livenesProbe: {}\n    \
             livenessProbe: {}\n    imgaePullPolicy: Never\n    imagePullPolicy: never\n",
        );
        let all = mistakes(&text);
        assert_eq!(all.len(), 7, "{all:#?}");
        assert!(all[0].starts_with("6:11: spec.containers[0].name: \"Web\" is not a DNS label"));
        assert_eq!(
            all[1],
            "10:17: spec.containers[0].ports[0].hostPort: 99999 is not a port (1-65535)"
        );
        assert_eq!(
            all[2],
            "13:14: spec.containers[0].env[0].value: a string (put it in quotes) belongs here, \
             not a number"
        );
        assert_eq!(
            all[3],
            "14:5: spec.containers[0].livenesProbe: unknown field; did you mean livenessProbe?"
        );
        assert_eq!(
            all[4],
            "15:5: spec.containers[0].livenessProbe: only a kubelet can serve this; remove it"
        );
        assert_eq!(
            all[5],
            "16:5: spec.containers[0].imgaePullPolicy: unknown field; did you mean \
             imagePullPolicy?"
        );
        assert!(
            all[6].ends_with("\"never\" is not known; did you mean Never?"),
            "{all:#?}"
        );
    }

    #[test]
    fn a_word_near_a_known_one_is_suggested() {
        let text = pod("  containers: [{name: c, image: i, imagePullPolicy: ifNotPresnt}]\n");
        assert!(mistakes(&text)[0].ends_with("did you mean IfNotPresent?"));
    }

    #[test]
    fn what_only_a_kubelet_or_a_cluster_serves_is_refused_by_name() {
        for (field, part) in [
            (
                "restartPolicy: Always",
                "only a kubelet restarts containers",
            ),
            (
                "restartPolicy: OnFailure",
                "only a kubelet restarts containers",
            ),
            ("serviceAccountName: x", "only a cluster can serve this"),
            ("nodeSelector: {a: b}", "only a cluster can serve this"),
            ("affinity: {}", "only a cluster can serve this"),
            ("tolerations: []", "only a cluster can serve this"),
            ("activeDeadlineSeconds: 5", "only a kubelet can serve this"),
            ("dnsPolicy: ClusterFirst", "needs a cluster's DNS"),
            ("hostUsers: false", "user namespace"),
            ("automountServiceAccountToken: true", "service accounts"),
            ("securityContext: {fsGroup: 5}", "use supplementalGroups"),
            (
                "volumes: [{name: v, configMap: {name: m}}]",
                "use hostPath or emptyDir",
            ),
            (
                "volumes: [{name: v, secret: {secretName: m}}]",
                "use hostPath or emptyDir",
            ),
            (
                "volumes: [{name: v, projected: {}}]",
                "use hostPath or emptyDir",
            ),
            (
                "volumes: [{name: v, persistentVolumeClaim: {}}]",
                "use hostPath or emptyDir",
            ),
            (
                "volumes: [{name: v, emptyDir: {sizeLimit: 1Mi}}]",
                "only a kubelet",
            ),
            (
                "volumes: [{name: v, emptyDir: {medium: Memory}}]",
                "only a kubelet",
            ),
            ("volumes: [{name: v, emptyDir: }]", "needs a source"),
        ] {
            let all = mistakes(&pod(&format!("{ONE}  {field}\n")));
            assert_eq!(all.len(), 1, "{field}: {all:#?}");
            assert!(
                all[0].starts_with("6:") && all[0].contains(part),
                "{field}: {all:#?}"
            );
        }
        for field in ["valueFrom: {fieldRef: {}}", "value: x, valueFrom: {}"] {
            let text = pod(&format!(
                "  containers: [{{name: c, image: i, env: [{{name: A, {field}}}]}}]\n"
            ));
            assert!(
                mistakes(&text)[0].contains("env[0].valueFrom: only a kubelet"),
                "{field}"
            );
        }
        for field in [
            "lifecycle",
            "readinessProbe",
            "startupProbe",
            "envFrom",
            "restartPolicy",
        ] {
            let text = pod(&format!(
                "  containers: [{{name: c, image: i, {field}: x}}]\n"
            ));
            assert!(mistakes(&text)[0].contains(field), "{field}");
        }
    }

    #[test]
    fn never_and_absence_are_both_no_restart() {
        assert!(load(&pod(&format!("{ONE}  restartPolicy: Never\n"))).is_ok());
        assert!(load(&pod(ONE)).is_ok());
    }

    #[test]
    fn names_and_references_must_fit_together() {
        let twice = pod("  containers: [{name: c, image: i}, {name: c, image: i}]\n");
        assert!(mistakes(&twice)[0].contains("containers[1].name: \"c\" is there twice"));
        let volume =
            pod("  containers: [{name: c, image: i, volumeMounts: [{name: v, mountPath: /v}]}]\n");
        assert!(mistakes(&volume)[0].contains("there is no volume \"v\""));
        let both = format!("{}---\n{}", pod(ONE), pod(ONE));
        assert!(mistakes(&both)[0].contains("default/web is there twice"));
    }

    #[test]
    fn host_ports_must_not_clash() {
        let port = |more: &str| format!("{{containerPort: 80, hostPort: 8080{more}}}");
        let with = |one: &str, two: &str| {
            pod(&format!(
                "  containers: [{{name: c, image: i, ports: [{one}, {two}]}}]\n"
            ))
        };
        assert!(mistakes(&with(&port(""), &port("")))[0].contains("8080 is taken"));
        assert!(mistakes(&with(&port(""), &port(", hostIP: 127.0.0.1")))[0].contains("taken"));
        assert!(load(&with(&port(""), &port(", protocol: UDP"))).is_ok());
        assert!(
            load(&with(
                &port(", hostIP: 127.0.0.1"),
                &port(", hostIP: 127.0.0.2")
            ))
            .is_ok()
        );
        let host = pod(
            "  hostNetwork: true\n  containers: [{name: c, image: i, ports: [{containerPort: 80, \
             hostPort: 81}]}]\n",
        );
        assert!(mistakes(&host)[0].contains("must equal containerPort 80"));
    }

    #[test]
    fn documents_that_are_no_pod() {
        assert!(mistakes("")[0].contains("there is no Pod"));
        assert!(mistakes("- a\n")[0].contains("a mapping belongs here"));
        assert!(
            mistakes("apiVersion: apps/v1\nkind: Deployment\n")[0].contains("a Deployment needs")
        );
        assert!(mistakes("apiVersion: v2\nkind: Pod\nmetadata: {name: a}\nspec: {}\n").len() == 2);
        let absent = mistakes("apiVersion: v1\nkind: Pod\n");
        assert_eq!(absent.len(), 2, "{absent:?}");
        assert!(mistakes("a: [1,\n")[0].starts_with(['1', '2']));
        assert!(mistakes(&pod("  containers: []\n"))[0].contains("at least one container"));
    }

    #[test]
    fn bad_paths_and_texts() {
        for (field, part) in [
            ("workingDir: a", "not an absolute path"),
            ("workingDir: /a/../b", "'..'"),
            ("env: [{name: \"A=B\"}]", "must not contain '='"),
            ("env: [{name: A, value: \"x\\0\"}]", "must not contain NUL"),
            ("env: [{name: \"A\\nB\"}]", "newline"),
            ("command: [1]", "put it in quotes"),
            ("command: x", "a list belongs here"),
            ("resources: {limits: {cpu: fast}}", "not a quantity"),
            (
                "resources: {limits: {cpu: 1}, requests: {cpu: 2}}",
                "more than the limit",
            ),
            ("resources: {limits: {nvidia.com/gpu: 1}}", "only a kubelet"),
            ("ports: [{containerPort: 0}]", "0 is not a port"),
            (
                "ports: [{containerPort: 80, hostIP: here}]",
                "not an IP address",
            ),
            ("ports: [{hostPort: 80}]", "containerPort: is missing"),
            ("securityContext: {runAsUser: -1}", "not a user id"),
            (
                "securityContext: {runAsUser: 0, runAsNonRoot: true}",
                "0 is root",
            ),
            (
                "securityContext: {capabilities: {add: [net admin]}}",
                "not a capability",
            ),
            (
                "securityContext: {privileged: true, allowPrivilegeEscalation: false}",
                "false does",
            ),
            (
                "securityContext: {seccompProfile: {type: Localhost}}",
                "localhostProfile: is missing",
            ),
        ] {
            let all = mistakes(&pod(&format!(
                "  containers:\n  - name: c\n    image: i\n    {field}\n"
            )));
            assert_eq!(all.len(), 1, "{field}: {all:#?}");
            assert!(
                all[0].starts_with("8:") && all[0].contains(part),
                "{field}: {all:#?}"
            );
        }
    }

    #[test]
    fn the_examples_are_pods() {
        let pod1 = load(include_str!("../../../../examples/pod1.yaml")).unwrap();
        assert_eq!(pod1[0].containers.len(), 2);
        let port = &pod1[0].containers[0].ports[0];
        assert_eq!(
            (port.container, port.host.as_ref().map(|host| host.value)),
            (80, Some(8080))
        );
        assert_eq!(
            load(include_str!("../../../../examples/pod2.yaml"))
                .unwrap()
                .len(),
            1
        );
    }

    #[test]
    fn texts_made_to_hurt_are_refused() {
        // The program's own stack; a test's is a quarter of it.
        let thread = std::thread::Builder::new().stack_size(8 << 20);
        let refused = thread.spawn(|| {
            assert!(!mistakes(&"[".repeat(100_000)).is_empty());
            assert!(!mistakes(&"- ".repeat(100_000)).is_empty());
            let mut bomb = String::from("a0: &a0 [x, x]\n");
            for level in 1..40 {
                let before = level - 1;
                bomb += &format!("a{level}: &a{level} [*a{before}, *a{before}]\n");
            }
            assert!(!mistakes(&bomb).is_empty());
        });
        refused.unwrap().join().unwrap();
    }
}
