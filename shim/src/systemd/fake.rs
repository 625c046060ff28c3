//! A systemd for tests, behind a socket of its own.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tokio::net::UnixListener;
use zbus::connection::Builder;
use zbus::object_server::SignalEmitter;
use zbus::zvariant::{OwnedObjectPath, OwnedValue};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    Well,
    Fails,
    Hangs,
    KnowsNothing,
}

pub(super) struct Fake {
    socket: PathBuf,
    calls: Calls,
    task: tokio::task::JoinHandle<()>,
    _dir: tempfile::TempDir,
}

type Calls = Arc<Mutex<Vec<String>>>;

#[derive(Clone)]
struct Manager {
    mood: Mood,
    calls: Calls,
}

#[derive(Debug, zbus::DBusError)]
#[zbus(prefix = "org.freedesktop.systemd1")]
enum Refusal {
    #[zbus(error)]
    ZBus(zbus::Error),
    NoSuchUnit(String),
}

const JOB: &str = "/org/freedesktop/systemd1/job/7";

impl Manager {
    fn note(&self, call: String) {
        self.calls.lock().unwrap().push(call);
    }

    async fn job(
        &self,
        emitter: SignalEmitter<'_>,
        unit: &str,
    ) -> Result<OwnedObjectPath, Refusal> {
        let job = OwnedObjectPath::try_from(JOB).unwrap();
        let other = OwnedObjectPath::try_from("/org/freedesktop/systemd1/job/6").unwrap();
        Self::job_removed(&emitter, 6, other, "other.service".into(), "failed".into()).await?;
        let result = match self.mood {
            Mood::Hangs => return Ok(job),
            Mood::Fails => "failed",
            _ => "done",
        };
        // systemd may tell of the end before it answers the call.
        Self::job_removed(&emitter, 7, job.clone(), unit.into(), result.into()).await?;
        Ok(job)
    }
}

#[zbus::interface(name = "org.freedesktop.systemd1.Manager")]
impl Manager {
    async fn start_transient_unit(
        &self,
        name: String,
        mode: String,
        properties: Vec<(String, OwnedValue)>,
        _auxiliary: Vec<(String, Vec<(String, OwnedValue)>)>,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> Result<OwnedObjectPath, Refusal> {
        let properties: HashMap<_, _> = properties.into_iter().collect();
        self.note(format!("start {name} {mode} {properties:?}"));
        self.job(emitter, &name).await
    }

    async fn stop_unit(
        &self,
        name: String,
        mode: String,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> Result<OwnedObjectPath, Refusal> {
        self.note(format!("stop {name} {mode}"));
        if self.mood == Mood::KnowsNothing {
            return Err(Refusal::NoSuchUnit(name));
        }
        self.job(emitter, &name).await
    }

    async fn reset_failed_unit(&self, name: String) -> Result<(), Refusal> {
        self.note(format!("reset {name}"));
        Err(Refusal::NoSuchUnit(name))
    }

    #[zbus(signal)]
    async fn job_removed(
        emitter: &SignalEmitter<'_>,
        id: u32,
        job: OwnedObjectPath,
        unit: String,
        result: String,
    ) -> zbus::Result<()>;
}

impl Fake {
    pub(super) async fn start(mood: Mood) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("private");
        let listener = UnixListener::bind(&socket).unwrap();
        let calls = Calls::default();
        let manager = Manager {
            mood,
            calls: Arc::clone(&calls),
        };
        let task = tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                let served = Builder::unix_stream(stream)
                    .server(zbus::Guid::generate())
                    .unwrap()
                    .p2p()
                    .serve_at("/org/freedesktop/systemd1", manager.clone())
                    .unwrap()
                    .build();
                open.push(served.await.unwrap());
            }
        });
        Self {
            socket,
            calls,
            task,
            _dir: dir,
        }
    }

    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    pub(super) fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}
