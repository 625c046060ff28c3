//! Pods whose containers a low-level runtime makes.

use std::os::fd::OwnedFd;

use carpel_cgroup::Cgroup;
use carpel_proto::holder::OciRuntime;
use carpel_spec::intent::ContainerConfig;
use oci_spec::runtime::Spec;

use super::create::{capabilities, profile};
use super::exec::Fds;
use super::pod::Pod;
use super::runtime::Runtime;
use crate::error::{Error, Failures};

/// A runtime, and the daemon's mount namespace for it.
pub(super) type RuntimeForHolder = (OciRuntime, OwnedFd);

impl Fds {
    pub(super) fn add_runtime(&mut self, (runtime, namespace): RuntimeForHolder) -> OciRuntime {
        OciRuntime {
            mount_namespace_fd: self.add(namespace),
            ..runtime
        }
    }
}

impl Runtime {
    /// Who makes the pod's containers; none is the native executor.
    pub(super) fn runtime_of(&self, pod: &Pod) -> Result<Option<RuntimeForHolder>, Error> {
        let name = pod.record.read(|r| r.runtime_handler.clone());
        let handlers = &self.parts.handlers;
        let handler = handlers.of_record(&name)?;
        let message = |handler: std::sync::Arc<_>| handlers.message(&handler, &pod.id);
        handler.map(message).transpose()
    }

    /// The OCI configuration with the seccomp profile in it: a runtime compiles it
    /// by itself.
    pub(super) fn spec_for_runtime(
        &self,
        config: &ContainerConfig,
        spec: &Spec,
    ) -> Result<Vec<u8>, Error> {
        let Some(profile) = profile(config) else {
            return encode(spec);
        };
        let section = self.parts.seccomp.section(&profile, capabilities(spec))?;
        let mut value = serde_json::to_value(spec)
            .map_err(|error| Error::Internal(format!("encode the OCI configuration: {error}")))?;
        value["linux"]["seccomp"] = section;
        encode(&value)
    }

    /// What a runtime knows of an ended container. All are asked: the record of a
    /// quarantined pod does not tell which one it is.
    pub(super) async fn forget_in_runtime(&self, id: &str) -> Result<(), Error> {
        let mut failures = Failures::default();
        for handler in self.parts.handlers.oci() {
            failures.note(handler.delete(id).await);
        }
        failures.into_result()
    }
}

pub(super) fn encode(spec: &impl serde::Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(spec)
        .map_err(|error| Error::Internal(format!("encode the OCI configuration: {error}")))
}

/// `--cgroup` of a runtime's exec for a group inside the container's.
pub(super) fn cgroup_option(group: &Cgroup, name: &str) -> String {
    match group.controllers() {
        [] => format!("/{name}"),
        controllers => format!("{}:/{name}", controllers.join(",")),
    }
}
