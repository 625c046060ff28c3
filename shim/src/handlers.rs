//! Runtime handlers: who makes the containers of a pod.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use carpel_oci_cli::{Features, Runtime};
use carpel_proto::holder::OciRuntime;
use carpel_sys::namespace;
use tokio::sync::OnceCell;

use crate::config::{Config, Handler};
use crate::error::{Error, Failures};
use crate::pod::blocking;

/// The executor of our own, built in. A pod's record calls it by an empty name too.
pub(crate) const NATIVE: &str = "native";

/// Where programs are that a configuration names without a path.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// All handlers; they can be exchanged while pods run.
#[derive(Debug)]
pub(crate) struct Handlers {
    run: PathBuf,
    table: RwLock<Table>,
}

#[derive(Debug)]
struct Table {
    default: String,
    oci: BTreeMap<String, Arc<OciHandler>>,
}

/// A handler that executes a command line.
#[derive(Debug)]
pub(crate) struct OciHandler {
    name: String,
    config: Handler,
    root: PathBuf,
    features: OnceCell<Features>,
}

/// What a client is told of a handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Described {
    pub(crate) name: String,
    pub(crate) recursive_read_only_mounts: bool,
}

impl Handlers {
    /// Warns of programs that are not there: they may come later.
    pub(crate) fn new(config: &Config) -> Self {
        let run = config.paths.run.clone();
        let table = Table::new(config);
        table.prepare();
        Self {
            run,
            table: RwLock::new(table),
        }
    }

    /// Takes over other handlers. Pods of one that is gone go on, and can be removed.
    pub(crate) fn replace(&self, config: &Config) {
        let table = Table::new(config);
        table.prepare();
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = table;
    }

    /// Name for the record of a pod that asks for `asked`. What it says holds for
    /// the pod's life, whatever the default becomes.
    pub(crate) fn resolve(&self, asked: &str) -> Result<String, Error> {
        let table = self.table();
        let name = match asked {
            "" => table.default.as_str(),
            asked => asked,
        };
        if name == NATIVE {
            return Ok(asked.to_owned());
        }
        match table.oci.get(name) {
            Some(handler) => handler.runtime().map(|_| name.to_owned()),
            None => Err(Error::Invalid(format!(
                "runtime_handler: {asked:?} is not known; there are {:?}",
                table.names()
            ))),
        }
    }

    /// The handler of a pod's record; none is the native executor.
    pub(crate) fn of_record(&self, name: &str) -> Result<Option<Arc<OciHandler>>, Error> {
        if name.is_empty() || name == NATIVE {
            return Ok(None);
        }
        let table = self.table();
        let handler = table.oci.get(name).cloned();
        handler.map(Some).ok_or_else(|| {
            Error::FailedPrecondition(format!(
                "the pod's runtime handler {name:?} is not configured any more"
            ))
        })
    }

    /// Those that execute a command line.
    pub(crate) fn oci(&self) -> Vec<Arc<OciHandler>> {
        self.table().oci.values().cloned().collect()
    }

    /// Every name that RunPodSandbox takes, the default's empty one first.
    pub(crate) async fn describe(&self) -> Vec<Described> {
        let default = self.table().default.clone();
        let mut all = vec![Described {
            name: NATIVE.to_owned(),
            recursive_read_only_mounts: true,
        }];
        for handler in self.oci() {
            all.push(Described {
                name: handler.name.clone(),
                recursive_read_only_mounts: handler.features().await.recursive_read_only_mounts,
            });
        }
        let unnamed = all.iter().find(|handler| handler.name == default).cloned();
        let unnamed = unnamed.map(|handler| Described {
            name: String::new(),
            ..handler
        });
        unnamed.into_iter().chain(all).collect()
    }

    /// The runtime as a holder gets it, and the descriptor that goes with it, whose
    /// index is for the caller to fill in. The bundle lies in the pod's directory.
    pub(crate) fn message(
        &self,
        handler: &OciHandler,
        pod_id: &str,
    ) -> Result<(OciRuntime, std::os::fd::OwnedFd), Error> {
        let runtime = handler.runtime()?;
        let own = Path::new("/proc/self/ns/mnt");
        let namespace =
            namespace::open(own).map_err(Error::io("open the daemon's mount namespace"))?;
        let text = |path: &Path| path.display().to_string();
        let message = OciRuntime {
            binary: text(&runtime.binary),
            root: text(&runtime.root),
            args: runtime.args,
            mount_namespace_fd: 0,
            directory: text(&self.run.join("pods").join(pod_id)),
        };
        Ok((message, namespace))
    }

    fn table(&self) -> std::sync::RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn new(config: &Config) -> Self {
        let handler = |(name, handler): (&String, &Handler)| {
            let root = match handler.root.as_os_str().is_empty() {
                true => config.paths.run.join("oci").join(name),
                false => handler.root.clone(),
            };
            let made = OciHandler {
                name: name.clone(),
                config: handler.clone(),
                root,
                features: OnceCell::new(),
            };
            (name.clone(), Arc::new(made))
        };
        Self {
            default: config.runtime.default_handler.clone(),
            oci: config.handlers.iter().map(handler).collect(),
        }
    }

    fn prepare(&self) {
        for handler in self.oci.values() {
            let ready = handler
                .runtime()
                .and_then(|runtime| Ok(runtime.make_root()?));
            if let Err(error) = ready {
                tracing::warn!(handler = %handler.name, %error, "pods cannot use this handler now");
            }
        }
    }

    fn names(&self) -> Vec<&str> {
        let oci = self.oci.keys().map(String::as_str);
        [NATIVE].into_iter().chain(oci).collect()
    }
}

impl OciHandler {
    /// The program as it stands on this host now.
    pub(crate) fn runtime(&self) -> Result<Runtime, Error> {
        let binary = &self.config.binary;
        let found = match binary.is_absolute() {
            true => Some(binary.clone()).filter(|path| path.is_file()),
            false => PATH
                .split(':')
                .map(|folder| Path::new(folder).join(binary))
                .find(|path| path.is_file()),
        };
        let binary = found.ok_or_else(|| {
            Error::FailedPrecondition(format!(
                "runtime handler {:?}: its program {binary:?} is not installed",
                self.name
            ))
        })?;
        Ok(Runtime {
            binary,
            root: self.root.clone(),
            args: self.config.args.clone(),
        })
    }

    /// Asked of the program once it is there.
    async fn features(&self) -> Features {
        let ask = || async {
            let runtime = self.runtime()?;
            blocking(move || Ok(runtime.features()?)).await
        };
        match self.features.get_or_try_init(ask).await {
            Ok(features) => *features,
            Err(error) => {
                tracing::debug!(handler = %self.name, %error, "its features are not known");
                Features::default()
            }
        }
    }

    /// Forgets a container. The state of a program that is not there any more goes
    /// too: what it is about, processes and cgroups, is ours to remove.
    pub(crate) async fn delete(&self, id: &str) -> Result<(), Error> {
        let state = self.root.join(id);
        if !state.exists() {
            return Ok(());
        }
        let (runtime, id) = (self.runtime(), id.to_owned());
        blocking(move || match runtime {
            Ok(runtime) => Ok(runtime.delete(&id)?),
            Err(_) => std::fs::remove_dir_all(&state)
                .map_err(Error::io(format!("remove {}", state.display()))),
        })
        .await
    }

    /// Forgets every container but those that `known` names.
    pub(crate) async fn sweep(&self, known: impl Fn(&str) -> bool) -> Result<(), Error> {
        let root = self.root.clone();
        let found = blocking(move || Ok(carpel_oci_cli::containers(&root)?)).await?;
        let mut failures = Failures::default();
        for id in found.iter().filter(|id| !known(id)) {
            tracing::info!(handler = %self.name, container = %id, "forgetting what belongs to no record");
            failures.note(self.delete(id).await);
        }
        failures.into_result()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handlers(default: &str, binary: &str) -> Handlers {
        let run = tempfile::tempdir().unwrap();
        let text = format!(
            "[paths]\nrun = {:?}\n[runtime]\ndefault_handler = {default:?}\n\
             [handlers.other]\nkind = \"oci\"\nbinary = {binary:?}\nargs = [\"--debug\"]\n",
            run.path()
        );
        Handlers::new(&Config::parse(&text).unwrap())
    }

    #[test]
    fn a_name_is_resolved_when_a_pod_is_made() {
        let native = handlers("native", "/bin/sh");
        assert_eq!(native.resolve("").unwrap(), "");
        assert_eq!(native.resolve("native").unwrap(), "native");
        assert_eq!(native.resolve("other").unwrap(), "other");
        let other = handlers("other", "sh");
        assert_eq!(other.resolve("").unwrap(), "other");
        assert!(
            other.of_record("").unwrap().is_none(),
            "a record without a name is native"
        );
        let error = native.resolve("kata").unwrap_err();
        assert!(matches!(error, Error::Invalid(_)));
        let text = error.to_string();
        assert!(text.contains("kata") && text.contains("native") && text.contains("other"));
        assert!(native.of_record("kata").is_err());
    }

    #[test]
    fn a_missing_program_is_an_error_when_it_is_needed() {
        let handlers = handlers("native", "no-such-runtime");
        let error = handlers.resolve("other").unwrap_err();
        assert!(matches!(error, Error::FailedPrecondition(_)), "{error}");
        assert!(error.to_string().contains("no-such-runtime"), "{error}");
        handlers.resolve("native").unwrap();
    }

    #[test]
    fn the_program_keeps_its_state_in_the_run_directory() {
        let handlers = handlers("native", "sh");
        let handler = handlers.of_record("other").unwrap().unwrap();
        let (message, _) = handlers.message(&handler, "p1").unwrap();
        let run = handlers.run.display();
        assert_eq!(message.root, format!("{run}/oci/other"));
        assert_eq!(message.directory, format!("{run}/pods/p1"));
        assert!(message.binary.ends_with("bin/sh"), "{}", message.binary);
        assert_eq!(message.args, ["--debug"]);
    }

    #[test]
    fn handlers_are_exchanged_while_pods_run() {
        let handlers = handlers("native", "sh");
        handlers.resolve("other").unwrap();
        handlers.replace(&Config::default());
        assert!(matches!(handlers.resolve("other"), Err(Error::Invalid(_))));
        assert!(handlers.of_record("other").is_err());
        assert!(handlers.oci().is_empty());
    }

    #[tokio::test]
    async fn one_without_features_claims_none() {
        let described = handlers("other", "/bin/true").describe().await;
        let names: Vec<_> = described
            .iter()
            .map(|handler| handler.name.as_str())
            .collect();
        assert_eq!(names, ["", "native", "other"]);
        let able: Vec<_> = described
            .iter()
            .map(|handler| handler.recursive_read_only_mounts)
            .collect();
        assert_eq!(able, [false, true, false]);
    }
}
