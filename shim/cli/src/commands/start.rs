//! The steps from a manifest to a running pod.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use carpel_proto::cri;
use tokio::time::{Instant, sleep};

use super::{images, pull};
use crate::args::Create;
use crate::client::Session;
use crate::error::{CliError, Doing, Result};
use crate::logs::{Joiner, LogFile};
use crate::manifest::Pod;
use crate::manifest::convert::{self, Facts, ImageFacts};
use crate::manifest::host;
use crate::manifest::model::{Container, PullPolicy};
use crate::state::PodDir;
use crate::{out, volumes};

/// How long a started container may take to be more than created.
const SETTLE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);

/// A pod to be made.
pub(super) struct Plan<'a> {
    pub(super) session: &'a Session,
    pub(super) state: &'a Path,
    pub(super) uid: String,
    pub(super) dir: PodDir,
    pod: &'a Pod,
    handler: &'a str,
    init_timeout: Duration,
}

impl<'a> Plan<'a> {
    pub(super) fn new(
        session: &'a Session,
        pod: &'a Pod,
        state: &'a Path,
        args: &'a Create,
    ) -> Result<Self> {
        let uid = uid()?;
        let metadata = cri::PodSandboxMetadata {
            name: pod.name.value.clone(),
            namespace: pod.namespace.clone(),
            uid: uid.clone(),
            attempt: 0,
        };
        let dir = PodDir::of(state, &metadata)
            .ok_or_else(|| CliError::refused(format!("{:?} is no file name", pod.name.value)))?;
        let (handler, init_timeout) = (args.runtime_handler.as_str(), args.init_timeout);
        Ok(Self {
            session,
            state,
            uid,
            dir,
            pod,
            handler,
            init_timeout,
        })
    }
}

/// A random UUID.
fn uid() -> Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| CliError::refused(format!("make a uid: {error}")))?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = String::with_capacity(36);
    for (index, byte) in bytes.iter().enumerate() {
        let dash = if matches!(index, 4 | 6 | 8 | 10) {
            "-"
        } else {
            ""
        };
        // Writing to a String cannot fail.
        let _: std::fmt::Result = write!(text, "{dash}{byte:02x}");
    }
    Ok(text)
}

pub(super) async fn run(plan: &Plan<'_>) -> Result<()> {
    let pod = plan.pod;
    let images = pull_images(plan).await?;
    plan.dir.make()?;
    let places = volumes::prepare(pod, &plan.dir)?;
    let facts = Facts {
        uid: plan.uid.clone(),
        log_directory: plan.dir.logs(),
        volumes: places.volumes,
        sub_paths: places.sub_paths,
        host_dns: host::dns()?,
        memory: host::memory()?,
    };
    let sandbox = convert::sandbox(pod, &facts);
    let id = run_sandbox(plan, &sandbox).await?;
    let made = Made {
        plan,
        id,
        sandbox,
        facts,
        images,
    };
    for container in &pod.init_containers {
        let id = made.start(container).await?;
        made.wait_for_end(container, &id).await?;
    }
    let mut started = Vec::new();
    for container in &pod.containers {
        started.push((container, made.start(container).await?));
    }
    for (container, id) in &started {
        made.wait_for_start(container, id).await?;
    }
    Ok(())
}

/// The images of all containers, fetched where the manifest says so.
async fn pull_images(plan: &Plan<'_>) -> Result<BTreeMap<String, ImageFacts>> {
    let mut images = BTreeMap::new();
    for container in plan.pod.all_containers() {
        let name = &container.image;
        let known = images.contains_key(name);
        let image = match container.pull {
            _ if known => None,
            PullPolicy::Always => None,
            PullPolicy::IfNotPresent | PullPolicy::Never => {
                images::find(plan.session, name).await?
            }
        };
        let image = match (image, container.pull) {
            _ if known => continue,
            (Some(image), _) => image,
            (None, PullPolicy::Never) => {
                return Err(CliError::refused(format!(
                    "container {}: image {name} is not there, and imagePullPolicy is Never",
                    container.name.value
                )));
            }
            (None, _) => {
                pull::pull(plan.session, name, pull::Credentials::default()).await?;
                images::require(plan.session, name).await?
            }
        };
        let facts = ImageFacts {
            id: image.id,
            uid: image.uid.map(|uid| uid.value),
            username: image.username,
        };
        images.insert(name.clone(), facts);
    }
    for container in plan.pod.all_containers() {
        if let Some(image) = images.get(&container.image) {
            check_non_root(plan.pod, container, image)?;
        }
    }
    Ok(images)
}

/// `runAsNonRoot` is a promise about the user, which only the image can break by now.
fn check_non_root(pod: &Pod, container: &Container, image: &ImageFacts) -> Result<()> {
    let identity = container.security.identity.or(pod.security.identity);
    if identity.non_root != Some(true) {
        return Ok(());
    }
    let who = match (identity.user.or(image.uid), image.username.as_str()) {
        (Some(0), _) | (None, "") => "root".to_owned(),
        (Some(_), _) => return Ok(()),
        (None, name) => format!("{name:?}, which may be root: give runAsUser a number"),
    };
    Err(CliError::refused(format!(
        "container {}: runAsNonRoot is set, and its user is {who}",
        container.name.value
    )))
}

async fn run_sandbox(plan: &Plan<'_>, config: &cri::PodSandboxConfig) -> Result<String> {
    let message = cri::RunPodSandboxRequest {
        config: Some(config.clone()),
        runtime_handler: plan.handler.to_owned(),
    };
    let reply = plan
        .session
        .runtime()
        .run_pod_sandbox(plan.session.request(message))
        .await;
    let doing = format_args!("make pod {}", plan.pod.name.value).to_string();
    Ok(reply.doing(doing)?.pod_sandbox_id)
}

/// A pod whose sandbox stands.
struct Made<'a> {
    plan: &'a Plan<'a>,
    id: String,
    sandbox: cri::PodSandboxConfig,
    facts: Facts,
    images: BTreeMap<String, ImageFacts>,
}

impl Made<'_> {
    async fn start(&self, container: &Container) -> Result<String> {
        let name = &container.name.value;
        let image = self
            .images
            .get(&container.image)
            .cloned()
            .unwrap_or_default();
        let config = convert::container(self.plan.pod, container, &self.facts, &image);
        let message = cri::CreateContainerRequest {
            pod_sandbox_id: self.id.clone(),
            config: Some(config),
            sandbox_config: Some(self.sandbox.clone()),
        };
        let session = self.plan.session;
        let reply = session
            .runtime()
            .create_container(session.request(message))
            .await;
        let id = reply
            .doing(format_args!("make container {name}"))?
            .container_id;
        let message = cri::StartContainerRequest {
            container_id: id.clone(),
        };
        let reply = session
            .runtime()
            .start_container(session.request(message))
            .await;
        reply.doing(format_args!("start container {name}"))?;
        Ok(id)
    }

    async fn status(&self, container: &Container, id: &str) -> Result<cri::ContainerStatus> {
        let message = cri::ContainerStatusRequest {
            container_id: id.to_owned(),
            verbose: false,
        };
        let session = self.plan.session;
        let reply = session
            .runtime()
            .container_status(session.request(message))
            .await;
        let name = &container.name.value;
        Ok(reply
            .doing(format_args!("look at container {name}"))?
            .status
            .unwrap_or_default())
    }

    /// A container may end at once; that it ended badly is told, and is no failure of ours.
    async fn wait_for_start(&self, container: &Container, id: &str) -> Result<()> {
        let end = Instant::now() + SETTLE;
        let name = &container.name.value;
        loop {
            let status = self.status(container, id).await?;
            match status.state() {
                cri::ContainerState::ContainerRunning => return Ok(()),
                cri::ContainerState::ContainerExited => {
                    if status.exit_code != 0 {
                        let code = status.exit_code;
                        out::note(format!(
                            "container {name} ended at once with exit code {code}"
                        ));
                    }
                    return Ok(());
                }
                _ if Instant::now() >= end => {
                    return Err(CliError::refused(format!(
                        "container {name} does not start"
                    )));
                }
                _ => sleep(POLL).await,
            }
        }
    }

    async fn wait_for_end(&self, container: &Container, id: &str) -> Result<()> {
        let end = Instant::now() + self.plan.init_timeout;
        let name = &container.name.value;
        loop {
            let status = self.status(container, id).await?;
            if status.state() == cri::ContainerState::ContainerExited {
                if status.exit_code == 0 {
                    return Ok(());
                }
                let said = last_words(Path::new(&status.log_path));
                let message = format!(
                    "init container {name} ended with exit code {}{said}",
                    status.exit_code
                );
                return Err(CliError::refused(message));
            }
            if Instant::now() >= end {
                return Err(CliError::refused(format!(
                    "init container {name} takes too long"
                )));
            }
            sleep(POLL).await;
        }
    }
}

/// The end of a log, for a message about a container whose log is about to go.
fn last_words(log: &Path) -> String {
    const LINES: usize = 5;
    let mut lines: Vec<String> = Vec::new();
    let mut joiner = Joiner::default();
    if let Ok(mut file) = LogFile::open(log) {
        let read: std::io::Result<()> = file.drain(|line| {
            if let Some(entry) = joiner.push(line) {
                lines.push(String::from_utf8_lossy(&entry.text).trim_end().to_owned());
                lines.drain(..lines.len().saturating_sub(LINES));
            }
            Ok(())
        });
        drop(read);
    }
    lines
        .into_iter()
        .map(|line| format!("\n  {line}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::load;

    #[test]
    fn uids_are_random_uuids() {
        let (one, two) = (uid().unwrap(), uid().unwrap());
        assert_ne!(one, two);
        assert_eq!(one.len(), 36);
        assert_eq!(&one[14..15], "4");
    }

    #[test]
    fn run_as_non_root_is_held() {
        let check = |context: &str, uid: Option<i64>, username: &str| {
            let text = format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspec:\n  securityContext: \
                 {{{context}}}\n  containers: [{{name: c, image: i}}]\n"
            );
            let pod = load(&text).unwrap().remove(0);
            let image = ImageFacts {
                id: String::new(),
                uid,
                username: username.to_owned(),
            };
            check_non_root(&pod, &pod.containers[0], &image).is_ok()
        };
        assert!(check("", None, ""));
        assert!(!check("runAsNonRoot: true", None, ""));
        assert!(!check("runAsNonRoot: true", Some(0), ""));
        assert!(!check("runAsNonRoot: true", None, "www"));
        assert!(check("runAsNonRoot: true", Some(5), ""));
        assert!(check("runAsNonRoot: true, runAsUser: 5", None, "www"));
    }
}
