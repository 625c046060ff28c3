//! Fields of a Pod that something other than a container runtime serves.
//!
//! `carpel create` stands in for no kubelet, scheduler or API server: such a field is
//! refused by its name, because a pod that ran without it would not be what was asked for.

use std::fmt;

/// Who would serve the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    Kubelet,
    Cluster,
    ApiServer,
    Windows,
}

/// A field that is known and not served here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refused {
    pub(crate) field: &'static str,
    by: By,
    /// What to do instead; may be empty.
    instead: &'static str,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.by {
            By::Kubelet => "only a kubelet can serve this",
            By::Cluster => "only a cluster can serve this",
            By::ApiServer => "the API server sets this",
            By::Windows => "this is for Windows pods",
        })?;
        let instead = if self.instead.is_empty() {
            "remove it"
        } else {
            self.instead
        };
        write!(f, "; {instead}")
    }
}

const fn by(by: By, field: &'static str, instead: &'static str) -> Refused {
    Refused { field, by, instead }
}

const fn kubelet(field: &'static str) -> Refused {
    by(By::Kubelet, field, "")
}

const fn cluster(field: &'static str) -> Refused {
    by(By::Cluster, field, "")
}

const fn api_server(field: &'static str) -> Refused {
    by(By::ApiServer, field, "")
}

pub(crate) const TOP: &[Refused] = &[api_server("status")];

pub(crate) const METADATA: &[Refused] = &[
    by(By::ApiServer, "generateName", "give a name"),
    api_server("uid"),
    api_server("resourceVersion"),
    api_server("generation"),
    api_server("creationTimestamp"),
    api_server("deletionTimestamp"),
    api_server("deletionGracePeriodSeconds"),
    api_server("managedFields"),
    api_server("selfLink"),
    cluster("ownerReferences"),
    cluster("finalizers"),
];

pub(crate) const SPEC: &[Refused] = &[
    kubelet("activeDeadlineSeconds"),
    cluster("affinity"),
    kubelet("ephemeralContainers"),
    by(By::Kubelet, "hostAliases", "mount a hosts file of your own"),
    kubelet("hostnameOverride"),
    by(
        By::Cluster,
        "imagePullSecrets",
        "pull the image first with `carpel pull --creds`",
    ),
    cluster("nodeName"),
    cluster("nodeSelector"),
    kubelet("overhead"),
    cluster("preemptionPolicy"),
    cluster("priority"),
    cluster("priorityClassName"),
    kubelet("readinessGates"),
    kubelet("resourceClaims"),
    by(By::Kubelet, "resources", "give resources to the containers"),
    by(
        By::Cluster,
        "runtimeClassName",
        "use `carpel create --runtime-handler`",
    ),
    cluster("schedulerName"),
    cluster("schedulingGates"),
    cluster("serviceAccount"),
    cluster("serviceAccountName"),
    kubelet("setHostnameAsFQDN"),
    kubelet("subdomain"),
    cluster("tolerations"),
    cluster("topologySpreadConstraints"),
];

pub(crate) const POD_SECURITY: &[Refused] = &[
    by(By::Kubelet, "fsGroup", "use supplementalGroups"),
    kubelet("fsGroupChangePolicy"),
    kubelet("seLinuxChangePolicy"),
    by(By::Windows, "windowsOptions", ""),
];

pub(crate) const CONTAINER: &[Refused] = &[
    by(By::Cluster, "envFrom", "write the variables as env"),
    kubelet("lifecycle"),
    kubelet("livenessProbe"),
    kubelet("readinessProbe"),
    kubelet("resizePolicy"),
    kubelet("restartPolicy"),
    kubelet("restartPolicyRules"),
    kubelet("startupProbe"),
    kubelet("terminationMessagePath"),
    kubelet("terminationMessagePolicy"),
    kubelet("volumeDevices"),
];

pub(crate) const CONTAINER_SECURITY: &[Refused] = &[by(By::Windows, "windowsOptions", "")];

pub(crate) const ENV: &[Refused] = &[by(By::Kubelet, "valueFrom", "write a value")];

pub(crate) const MOUNT: &[Refused] = &[by(By::Kubelet, "subPathExpr", "use subPath")];

pub(crate) const RESOURCES: &[Refused] = &[kubelet("claims")];

pub(crate) const EMPTY_DIR: &[Refused] = &[kubelet("sizeLimit")];

/// Volume sources other than hostPath and emptyDir.
pub(crate) const VOLUME: &[Refused] = &[
    volume("awsElasticBlockStore"),
    volume("azureDisk"),
    volume("azureFile"),
    volume("cephfs"),
    volume("cinder"),
    volume("configMap"),
    volume("csi"),
    volume("downwardAPI"),
    volume("ephemeral"),
    volume("fc"),
    volume("flexVolume"),
    volume("flocker"),
    volume("gcePersistentDisk"),
    volume("gitRepo"),
    volume("glusterfs"),
    volume("image"),
    volume("iscsi"),
    volume("nfs"),
    volume("persistentVolumeClaim"),
    volume("photonPersistentDisk"),
    volume("portworxVolume"),
    volume("projected"),
    volume("quobyte"),
    volume("rbd"),
    volume("scaleIO"),
    volume("secret"),
    volume("storageos"),
    volume("vsphereVolume"),
];

const fn volume(field: &'static str) -> Refused {
    by(By::Kubelet, field, "use hostPath or emptyDir")
}
