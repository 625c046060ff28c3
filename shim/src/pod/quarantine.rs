//! Pods and containers whose records cannot be read: listed, and good for removal.

use std::sync::Arc;

use carpel_proto::state::container_record::Phase as ContainerPhase;
use carpel_proto::state::pod_record::Phase;
use carpel_proto::state::{ContainerRecord, PodRecord};
use carpel_spec::intent::{ContainerConfig, PodConfig};

use super::container::{Container, UNKNOWN};
use super::ids::short;
use super::pod::Pod;
use super::runtime::Runtime;
use crate::state::Loaded;

impl Runtime {
    pub(super) fn quarantined_pod(&self, loaded: &Loaded, why: String) -> Pod {
        tracing::error!(pod = %loaded.id, %why, "pod record is quarantined");
        let cgroup = self
            .noted_cgroup(&loaded.id)
            .or_else(|| cgroup_by_containers(loaded))
            .unwrap_or_else(|| self.parts.places.own(&loaded.id));
        let ours = cgroup == self.parts.places.own(&loaded.id);
        let mut record = PodRecord {
            id: loaded.id.clone(),
            network_attached: true,
            ..PodRecord::default()
        };
        record.set_phase(Phase::NotReady);
        let config = PodConfig {
            uid: loaded.id.clone(),
            name: format!("quarantined-{}", short(&loaded.id)),
            // Then it is the kubelet's to remove.
            cgroup_parent: if ours { String::new() } else { cgroup.clone() },
            ..PodConfig::default()
        };
        record.cgroup = cgroup;
        Pod::new(record, config, Arc::clone(&self.feed), Some(why))
    }
}

/// Each says where it is: in its pod's.
fn cgroup_by_containers(loaded: &Loaded) -> Option<String> {
    let mut records = loaded
        .containers
        .iter()
        .filter_map(|(_, r)| r.as_ref().ok());
    let (parent, _) = records.find_map(|record| record.cgroup.rsplit_once('/'))?;
    Some(parent.to_owned())
}

pub(super) fn container(pod: &Pod, id: String, why: String) -> Container {
    tracing::error!(container = %id, %why, "container record is quarantined");
    let name = format!("quarantined-{}", short(&id));
    let mut record = ContainerRecord {
        cgroup: format!("{}/{id}", pod.cgroup()),
        id,
        pod_id: pod.id.clone(),
        exit_code: UNKNOWN,
        reason: "Unknown".into(),
        message: why,
        ..ContainerRecord::default()
    };
    record.set_phase(ContainerPhase::Exited);
    let config = ContainerConfig {
        name,
        ..ContainerConfig::default()
    };
    Container::new(record, config)
}

#[cfg(test)]
mod tests {
    use super::cgroup_by_containers;
    use crate::state::Loaded;
    use carpel_proto::state::ContainerRecord;

    #[test]
    fn a_readable_container_tells_the_pods_cgroup() {
        let mut loaded = Loaded {
            id: "p".into(),
            pod: Err("damaged".into()),
            containers: vec![("a".into(), Err("damaged".into()))],
        };
        assert_eq!(cgroup_by_containers(&loaded), None);
        let record = ContainerRecord {
            cgroup: "/kubepods/pod1/b".into(),
            ..ContainerRecord::default()
        };
        loaded.containers.push(("b".into(), Ok(record)));
        assert_eq!(
            cgroup_by_containers(&loaded).as_deref(),
            Some("/kubepods/pod1")
        );
    }
}
