//! Labels and annotations that carry meaning between a kubelet, its tools and us.

pub(crate) const POD_NAME: &str = "io.kubernetes.pod.name";
pub(crate) const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub(crate) const POD_UID: &str = "io.kubernetes.pod.uid";
pub(crate) const CONTAINER_NAME: &str = "io.kubernetes.container.name";
pub(crate) const RESTARTS: &str = "io.kubernetes.container.restartCount";
/// Seconds between the stop signal and the kill; on a container, as the kubelet writes it.
pub(crate) const GRACE: &str = "io.kubernetes.pod.terminationGracePeriod";
/// On the containers that `carpel create` ran before the others.
pub(crate) const INIT: &str = "carpel.io/init-container";
/// The container that is meant when a pod has several and none is named.
pub(crate) const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";
