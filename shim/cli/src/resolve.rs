//! From what the user typed to what the runtime has.

use std::fmt::Write as _;

use carpel_proto::cri;

use crate::args::Scope;
use crate::client::Session;
use crate::error::{CliError, Doing, Result};
use crate::keys;

/// Shorter beginnings of an id are taken for names only.
const MIN_PREFIX: usize = 3;

/// Every pod, newest first.
pub(crate) async fn all_pods(session: &Session) -> Result<Vec<cri::PodSandbox>> {
    let request = session.request(cri::ListPodSandboxRequest { filter: None });
    let mut pods = session
        .runtime()
        .list_pod_sandbox(request)
        .await
        .doing("list pods")?
        .items;
    pods.sort_by_key(|pod| std::cmp::Reverse(pod.created_at));
    Ok(pods)
}

/// Every container, newest first; those of one pod when given.
pub(crate) async fn containers(
    session: &Session,
    pod: Option<&str>,
) -> Result<Vec<cri::Container>> {
    let filter = pod.map(|id| cri::ContainerFilter {
        pod_sandbox_id: id.to_owned(),
        ..cri::ContainerFilter::default()
    });
    let request = session.request(cri::ListContainersRequest { filter });
    let mut all = session
        .runtime()
        .list_containers(request)
        .await
        .doing("list containers")?
        .containers;
    all.sort_by_key(|container| std::cmp::Reverse(container.created_at));
    Ok(all)
}

/// The pod that the user means.
pub(crate) async fn pod(session: &Session, wanted: &str, scope: &Scope) -> Result<cri::PodSandbox> {
    let pods = all_pods(session).await?;
    find_pod(&pods, wanted, scope.namespace.as_deref()).cloned()
}

pub(crate) fn name(pod: &cri::PodSandbox) -> &str {
    pod.metadata.as_ref().map_or("", |metadata| &metadata.name)
}

pub(crate) fn namespace(pod: &cri::PodSandbox) -> &str {
    pod.metadata
        .as_ref()
        .map_or("", |metadata| &metadata.namespace)
}

/// What makes two sandboxes the same pod.
pub(crate) fn key(pod: &cri::PodSandbox) -> (&str, &str, &str) {
    let uid = pod.metadata.as_ref().map_or("", |metadata| &metadata.uid);
    (namespace(pod), name(pod), uid)
}

/// Exact names come before ids; of several sandboxes of one pod the newest counts.
pub(crate) fn find_pod<'a>(
    pods: &'a [cri::PodSandbox],
    wanted: &str,
    scope: Option<&str>,
) -> Result<&'a cri::PodSandbox> {
    let (scope, bare) = match wanted.split_once('/') {
        Some((namespace, bare)) => (Some(namespace), bare),
        None => (scope, wanted),
    };
    let within = |pod: &&cri::PodSandbox| scope.is_none_or(|scope| namespace(pod) == scope);
    let mut found: Vec<&cri::PodSandbox> = pods
        .iter()
        .filter(within)
        .filter(|pod| name(pod) == bare)
        .collect();
    if found.is_empty() && bare.len() >= MIN_PREFIX {
        found = pods
            .iter()
            .filter(within)
            .filter(|pod| pod.id.starts_with(bare))
            .collect();
        if let Some(exact) = found.iter().find(|pod| pod.id == bare) {
            return Ok(exact);
        }
        return one(&found, "pod", wanted, describe_pod);
    }
    found.sort_by_key(|pod| (pod.state, std::cmp::Reverse(pod.created_at)));
    let mut seen = Vec::new();
    found.retain(|pod| {
        let new = !seen.contains(&namespace(pod));
        seen.push(namespace(pod));
        new
    });
    one(&found, "pod", wanted, describe_pod)
}

fn describe_pod(pod: &cri::PodSandbox) -> String {
    format!("{}/{} ({})", namespace(pod), name(pod), short(&pod.id))
}

fn one<'a, T>(
    found: &[&'a T],
    kind: &'static str,
    wanted: &str,
    describe: impl Fn(&T) -> String,
) -> Result<&'a T> {
    match found {
        [only] => Ok(only),
        [] => Err(CliError::Absent {
            kind,
            wanted: wanted.to_owned(),
        }),
        several => {
            let mut message = format!("{wanted:?} can mean {} {kind}s:", several.len());
            for item in several {
                // Writing to a String cannot fail.
                let _: std::fmt::Result = write!(message, " {}", describe(item));
            }
            Err(CliError::refused(message))
        }
    }
}

pub(crate) fn container_name(container: &cri::Container) -> &str {
    container
        .metadata
        .as_ref()
        .map_or("", |metadata| &metadata.name)
}

/// The latest containers of a pod, one a name, as the pod's containers are counted.
pub(crate) fn latest(containers: &[cri::Container]) -> Vec<&cri::Container> {
    let attempt = |container: &cri::Container| {
        container
            .metadata
            .as_ref()
            .map_or(0, |metadata| metadata.attempt)
    };
    let mut latest: Vec<&cri::Container> = Vec::new();
    for container in containers {
        let same = |other: &&mut &cri::Container| {
            container_name(other) == container_name(container)
                && other.pod_sandbox_id == container.pod_sandbox_id
        };
        match latest.iter_mut().find(same) {
            Some(other) if attempt(other) < attempt(container) => *other = container,
            Some(_) => {}
            None => latest.push(container),
        }
    }
    latest.sort_by_key(|container| container.created_at);
    latest
}

/// The container of a pod that is meant; without a name the default one, with a word about it.
pub(crate) fn pick<'a>(
    pod: &cri::PodSandbox,
    containers: &'a [cri::Container],
    wanted: Option<&str>,
) -> Result<(&'a cri::Container, Option<String>)> {
    let latest = latest(containers);
    let names: Vec<&str> = latest
        .iter()
        .map(|container| container_name(container))
        .collect();
    let find = |name: &str| latest.iter().find(|c| container_name(c) == name).copied();
    if let Some(wanted) = wanted {
        return match find(wanted) {
            Some(container) => Ok((container, None)),
            None => Err(CliError::refused(format!(
                "pod {} has no container {wanted:?}; it has {}",
                name(pod),
                listed(&names)
            ))),
        };
    }
    let regular: Vec<&cri::Container> = latest
        .iter()
        .copied()
        .filter(|c| !c.annotations.contains_key(keys::INIT))
        .collect();
    let preferred = pod
        .annotations
        .get(keys::DEFAULT_CONTAINER)
        .and_then(|name| find(name));
    let Some(picked) = preferred.or_else(|| regular.first().copied()) else {
        return Err(CliError::refused(format!(
            "pod {} has no containers",
            name(pod)
        )));
    };
    let note = (regular.len() > 1 && preferred.is_none()).then(|| {
        format!(
            "container {} of {}; name another with -c",
            container_name(picked),
            listed(&names)
        )
    });
    Ok((picked, note))
}

fn listed(names: &[&str]) -> String {
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}

/// A container by `[namespace/]pod/container`, by its own name, or by the beginning of its id.
pub(crate) fn find_container<'a>(
    pods: &[cri::PodSandbox],
    containers: &'a [cri::Container],
    wanted: &str,
    scope: Option<&str>,
) -> Result<&'a cri::Container> {
    if let Some((pod, container)) = wanted.rsplit_once('/') {
        let pod = find_pod(pods, pod, scope)?;
        let of_pod = |c: &&cri::Container| c.pod_sandbox_id == pod.id;
        let found = latest(containers).into_iter().filter(of_pod);
        let found: Vec<_> = found.filter(|c| container_name(c) == container).collect();
        return one(&found, "container", wanted, |c| describe_container(pods, c));
    }
    let within = |container: &&cri::Container| {
        let pod = pods.iter().find(|pod| pod.id == container.pod_sandbox_id);
        scope.is_none_or(|scope| pod.is_some_and(|pod| namespace(pod) == scope))
    };
    let named = latest(containers).into_iter().filter(within);
    let mut found: Vec<&cri::Container> = named.filter(|c| container_name(c) == wanted).collect();
    if found.is_empty() && wanted.len() >= MIN_PREFIX {
        found = containers
            .iter()
            .filter(|c| c.id.starts_with(wanted))
            .collect();
    }
    one(&found, "container", wanted, |container| {
        describe_container(pods, container)
    })
}

fn describe_container(pods: &[cri::PodSandbox], container: &cri::Container) -> String {
    let pod = pods.iter().find(|pod| pod.id == container.pod_sandbox_id);
    let of = pod
        .map(|pod| format!("{}/{}/", namespace(pod), name(pod)))
        .unwrap_or_default();
    format!(
        "{of}{} ({})",
        container_name(container),
        short(&container.id)
    )
}

/// An id as it is shown: 13 characters, without the name of the hash.
pub(crate) fn short(id: &str) -> &str {
    let bare = id.split_once(':').map_or(id, |(_, bare)| bare);
    bare.char_indices()
        .nth(13)
        .map_or(bare, |(end, _)| &bare[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(id: &str, namespace: &str, name: &str, created_at: i64) -> cri::PodSandbox {
        cri::PodSandbox {
            id: id.to_owned(),
            metadata: Some(cri::PodSandboxMetadata {
                name: name.to_owned(),
                namespace: namespace.to_owned(),
                ..cri::PodSandboxMetadata::default()
            }),
            created_at,
            ..cri::PodSandbox::default()
        }
    }

    fn container(id: &str, pod: &str, name: &str, attempt: u32) -> cri::Container {
        cri::Container {
            id: id.to_owned(),
            pod_sandbox_id: pod.to_owned(),
            metadata: Some(cri::ContainerMetadata {
                name: name.to_owned(),
                attempt,
            }),
            created_at: attempt.into(),
            ..cri::Container::default()
        }
    }

    fn pods() -> Vec<cri::PodSandbox> {
        vec![
            pod("aaa111", "default", "web", 5),
            pod("aaa222", "default", "db", 4),
            pod("bbb111", "shop", "db", 3),
            pod("ccc111", "default", "web", 9),
        ]
    }

    fn id(wanted: &str, scope: Option<&str>) -> std::result::Result<String, String> {
        find_pod(&pods(), wanted, scope)
            .map(|pod| pod.id.clone())
            .map_err(|e| e.to_string())
    }

    #[test]
    fn pods_are_found_by_name_namespace_and_id() {
        assert_eq!(id("web", None).unwrap(), "ccc111");
        assert_eq!(id("shop/db", None).unwrap(), "bbb111");
        assert_eq!(id("db", Some("default")).unwrap(), "aaa222");
        assert_eq!(id("bbb", None).unwrap(), "bbb111");
        assert_eq!(id("aaa111", None).unwrap(), "aaa111");
    }

    #[test]
    fn what_is_not_clear_lists_what_it_could_be() {
        let error = id("db", None).unwrap_err();
        assert!(error.contains("default/db (aaa222)") && error.contains("shop/db (bbb111)"));
        assert!(id("aaa", None).unwrap_err().contains("2 pods"));
        assert!(id("b", None).unwrap_err().contains("is not there"));
        assert!(id("x/web", None).unwrap_err().contains("is not there"));
    }

    #[test]
    fn a_ready_sandbox_comes_before_a_newer_dead_one() {
        let mut pods = pods();
        pods[3].state = cri::PodSandboxState::SandboxNotready.into();
        assert_eq!(find_pod(&pods, "web", None).unwrap().id, "aaa111");
    }

    #[test]
    fn the_latest_attempt_of_a_container_counts() {
        let all = [container("1", "p", "c", 0), container("2", "p", "c", 1)];
        assert_eq!(latest(&all)[0].id, "2");
        let pod = pod("p", "default", "web", 1);
        assert_eq!(pick(&pod, &all, None).unwrap().0.id, "2");
        assert!(
            pick(&pod, &all, Some("x"))
                .unwrap_err()
                .to_string()
                .contains("it has c")
        );
        assert!(pick(&pod, &[], None).is_err());
    }

    #[test]
    fn without_a_name_the_first_regular_container_is_meant() {
        let mut all = [
            container("1", "p", "init", 0),
            container("2", "p", "a", 1),
            container("3", "p", "b", 2),
        ];
        all[0]
            .annotations
            .insert(keys::INIT.to_owned(), "true".to_owned());
        let mut pod = pod("p", "default", "web", 1);
        let (picked, note) = pick(&pod, &all, None).unwrap();
        assert_eq!(picked.id, "2");
        assert!(note.unwrap().contains("init, a, b"));
        pod.annotations
            .insert(keys::DEFAULT_CONTAINER.to_owned(), "b".to_owned());
        let (picked, note) = pick(&pod, &all, None).unwrap();
        assert_eq!((picked.id.as_str(), note), ("3", None));
    }

    #[test]
    fn containers_are_found_by_pod_name_and_id() {
        let all = [
            container("c1c1", "aaa222", "x", 0),
            container("c2c2", "bbb111", "x", 0),
        ];
        let find = |wanted: &str| {
            find_container(&pods(), &all, wanted, None)
                .map(|c| c.id.clone())
                .map_err(|e| e.to_string())
        };
        assert_eq!(find("shop/db/x").unwrap(), "c2c2");
        assert_eq!(find("c1c").unwrap(), "c1c1");
        assert!(find("x").unwrap_err().contains("shop/db/x"));
    }

    #[test]
    fn ids_are_cut() {
        assert_eq!(short("sha256:0123456789abcdef"), "0123456789abc");
        assert_eq!(short("abc"), "abc");
    }
}
