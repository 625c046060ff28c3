//! Calls of systemd's manager, over its private socket: no bus daemon is needed, and
//! none can be in the way.

use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use tokio::net::UnixStream;
use zbus::Connection;
use zbus::connection::Builder;
use zbus::zvariant::{OwnedObjectPath, Value};

use super::scope::Scope;
use crate::error::Error;

/// For systemd to do a job; it can be busy on a node that starts many pods.
const LIMIT: Duration = Duration::from_secs(30);
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";
/// Jobs of a scope replace those that wait.
const MODE: &str = "replace";

/// Who makes and ends scopes.
#[async_trait]
pub(crate) trait Units: fmt::Debug + Send + Sync {
    /// Makes the scope with its process in it; its cgroup is there when this returns.
    async fn start(&self, scope: &Scope) -> Result<(), Error>;
    /// Ends the scope with all that is in it. One that is not there is ended.
    async fn stop(&self, unit: &str) -> Result<(), Error>;
}

#[derive(Debug)]
pub(crate) struct Systemd {
    socket: PathBuf,
    limit: Duration,
}

type Properties<'a> = &'a [(&'a str, Value<'a>)];
type Auxiliary<'a> = &'a [(&'a str, Properties<'a>)];

#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1",
    gen_blocking = false
)]
trait Manager {
    fn start_transient_unit(
        &self,
        name: &str,
        mode: &str,
        properties: Properties<'_>,
        auxiliary: Auxiliary<'_>,
    ) -> zbus::Result<OwnedObjectPath>;
    fn stop_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn reset_failed_unit(&self, name: &str) -> zbus::Result<()>;

    #[zbus(signal)]
    fn job_removed(
        &self,
        id: u32,
        job: OwnedObjectPath,
        unit: String,
        result: String,
    ) -> zbus::Result<()>;
}

impl Systemd {
    pub(crate) fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
            limit: LIMIT,
        }
    }

    #[cfg(test)]
    pub(super) fn with_limit(socket: &Path, limit: Duration) -> Self {
        Self {
            limit,
            ..Self::new(socket)
        }
    }

    /// A connection of its own: none is left open that systemd, executed anew, cuts.
    async fn manager(&self) -> Result<ManagerProxy<'static>, Error> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| {
            Error::Unavailable(format!(
                "systemd does not answer at {}: {error} (cgroup.driver is \"systemd\")",
                self.socket.display()
            ))
        })?;
        let connection: Connection = Builder::unix_stream(stream)
            .p2p()
            .build()
            .await
            .map_err(|error| failed("connect to systemd", &error))?;
        ManagerProxy::new(&connection)
            .await
            .map_err(|error| failed("talk to systemd", &error))
    }

    async fn in_time(
        &self,
        what: String,
        work: impl Future<Output = Result<(), Error>>,
    ) -> Result<(), Error> {
        let after = self.limit;
        tokio::time::timeout(after, work)
            .await
            .unwrap_or(Err(Error::Deadline { what, after }))
    }
}

#[async_trait]
impl Units for Systemd {
    async fn start(&self, scope: &Scope) -> Result<(), Error> {
        let what = format!("systemd's start of {}", scope.unit);
        let work = async {
            let manager = self.manager().await?;
            // Listened to before the job can be over.
            let mut removed = jobs(&manager).await?;
            let properties = scope.properties();
            let job = manager
                .start_transient_unit(&scope.unit, MODE, &properties, &[])
                .await
                .map_err(|error| failed(&format!("start {}", scope.unit), &error))?;
            wait(&mut removed, &job, &scope.unit).await
        };
        self.in_time(what, work).await
    }

    async fn stop(&self, unit: &str) -> Result<(), Error> {
        let work = async {
            let manager = self.manager().await?;
            let mut removed = jobs(&manager).await?;
            match manager.stop_unit(unit, MODE).await {
                Ok(job) => wait(&mut removed, &job, unit).await?,
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(failed(&format!("stop {unit}"), &error)),
            }
            match manager.reset_failed_unit(unit).await {
                Err(error) if !is_gone(&error) => Err(failed(&format!("forget {unit}"), &error)),
                _ => Ok(()),
            }
        };
        self.in_time(format!("systemd's stop of {unit}"), work)
            .await
    }
}

async fn jobs(manager: &ManagerProxy<'static>) -> Result<JobRemovedStream, Error> {
    manager
        .receive_job_removed()
        .await
        .map_err(|error| failed("listen to systemd", &error))
}

/// Waits for the end of the job.
async fn wait(
    removed: &mut JobRemovedStream,
    job: &OwnedObjectPath,
    unit: &str,
) -> Result<(), Error> {
    while let Some(signal) = removed.next().await {
        let told = signal
            .args()
            .map_err(|error| failed("understand systemd", &error))?;
        if told.job() != job {
            continue;
        }
        return match told.result().as_str() {
            "done" => Ok(()),
            result => Err(Error::Internal(format!(
                "systemd's job for {unit} ended with {result:?}"
            ))),
        };
    }
    Err(Error::Unavailable(format!(
        "systemd closed the connection before its job for {unit} was over"
    )))
}

fn is_gone(error: &zbus::Error) -> bool {
    matches!(error, zbus::Error::MethodError(name, ..) if name.as_str() == NO_SUCH_UNIT)
}

fn failed(what: &str, error: &zbus::Error) -> Error {
    Error::Internal(format!("cannot {what}: {error}"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::fake::{Fake, Mood};
    use super::{Scope, Systemd, Units};
    use crate::error::Error;

    fn scope() -> Scope {
        Scope::new("17", "kubepods-pod1.slice", 4711)
    }

    #[tokio::test]
    async fn a_scope_is_made_with_its_process_and_ended() {
        let fake = Fake::start(Mood::Well).await;
        let systemd = Systemd::new(fake.socket());
        systemd.start(&scope()).await.unwrap();
        systemd.stop("carpel-17.scope").await.unwrap();
        let calls = fake.calls();
        assert_eq!(calls.len(), 3, "{calls:?}");
        for part in [
            "start carpel-17.scope replace",
            "Slice",
            "kubepods-pod1.slice",
            "4711",
        ] {
            assert!(calls[0].contains(part), "{part}: {}", calls[0]);
        }
        assert_eq!(
            calls[1..],
            ["stop carpel-17.scope replace", "reset carpel-17.scope"]
        );
    }

    #[tokio::test]
    async fn a_scope_that_is_not_there_is_ended() {
        let fake = Fake::start(Mood::KnowsNothing).await;
        let systemd = Systemd::new(fake.socket());
        systemd.stop("carpel-17.scope").await.unwrap();
    }

    #[tokio::test]
    async fn a_job_that_fails_is_an_error_with_its_result() {
        let fake = Fake::start(Mood::Fails).await;
        let systemd = Systemd::new(fake.socket());
        let error = systemd.start(&scope()).await.unwrap_err().to_string();
        assert!(
            error.contains("carpel-17.scope") && error.contains("failed"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_job_without_end_is_given_up() {
        let fake = Fake::start(Mood::Hangs).await;
        let systemd = Systemd::with_limit(fake.socket(), Duration::from_millis(300));
        let error = systemd.start(&scope()).await.unwrap_err();
        assert!(matches!(error, Error::Deadline { .. }), "{error}");
    }

    #[tokio::test]
    async fn no_systemd_is_told_with_the_setting() {
        let systemd = Systemd::new(std::path::Path::new("/nonexistent/private"));
        let error = systemd.start(&scope()).await.unwrap_err();
        assert!(matches!(&error, Error::Unavailable(_)), "{error}");
        assert!(error.to_string().contains("cgroup.driver"), "{error}");
    }
}
