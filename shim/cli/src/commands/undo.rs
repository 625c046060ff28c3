//! Takes back a pod that could not be made whole.

use std::collections::HashMap;

use carpel_proto::cri;

use super::delete;
use super::start::Plan;
use crate::error::{Doing, Result};
use crate::{keys, out};

/// Removes what was made of the pod; what does not go is told, and the rest goes on.
pub(super) async fn run(plan: &Plan<'_>) {
    // By label, for the reply that carried the id may never have come.
    match made(plan).await {
        Ok(pods) => {
            for pod in pods {
                if let Err(error) = delete::delete(plan.session, plan.state, &pod, Some(1)).await {
                    out::note(format!("while undoing: {error}"));
                }
            }
        }
        Err(error) => out::note(format!("while undoing: {error}")),
    }
    if let Err(error) = plan.dir.remove() {
        out::note(format!("while undoing: {error}"));
    }
}

async fn made(plan: &Plan<'_>) -> Result<Vec<cri::PodSandbox>> {
    let filter = cri::PodSandboxFilter {
        label_selector: HashMap::from([(keys::POD_UID.to_owned(), plan.uid.clone())]),
        ..cri::PodSandboxFilter::default()
    };
    let request = plan.session.request(cri::ListPodSandboxRequest {
        filter: Some(filter),
    });
    let pods = plan
        .session
        .runtime()
        .list_pod_sandbox(request)
        .await
        .doing("list pods")?
        .items;
    // A runtime that ignored the filter must not cost anybody else's pod.
    let ours = |pod: &cri::PodSandbox| pod.labels.get(keys::POD_UID) == Some(&plan.uid);
    Ok(pods.into_iter().filter(ours).collect())
}
