//! One container: its configuration, its record, and who waits for its end.

use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex};

use carpel_proto::state::ContainerRecord;
use carpel_proto::state::container_record::Phase;
use carpel_spec::intent::{ContainerConfig, Resources};
use oci_spec::runtime::Spec;
use tokio::sync::watch;
use tokio::time::Instant;

use super::recorded::Recorded;
use super::resources;
use crate::error::Error;
use crate::state::StateStore;

#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) pod_id: String,
    pub(crate) config: Arc<ContainerConfig>,
    pub(super) record: Recorded<ContainerRecord>,
    exited: watch::Sender<bool>,
    /// When a stop that runs will kill; a second stop may bring it forward.
    pub(super) kill_at: watch::Sender<Option<Instant>>,
    /// Held by what changes the container as a whole: start and removal.
    pub(super) busy: tokio::sync::Mutex<()>,
    /// Read from disk once.
    pub(super) spec: tokio::sync::OnceCell<Arc<Spec>>,
    /// Of the first process, as the host counts; 0 when not known.
    pid: AtomicI32,
    /// What became of it while there was no daemon is not known yet.
    unknown: AtomicBool,
    pub(super) cpu_sample: Mutex<Option<super::stats::CpuSample>>,
}

/// Exit code of a container whose program could not be started; containerd's too.
const CANNOT_START: i32 = 128;
/// Exit code of a container whose end nobody saw.
pub(super) const UNKNOWN: i32 = 255;

/// How a container ended.
pub(super) struct End<'a> {
    pub(super) at_ns: i64,
    pub(super) code: i32,
    pub(super) reason: &'a str,
    pub(super) message: &'a str,
}

/// A snapshot, consistent in itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct Status {
    pub(crate) phase: Phase,
    pub(crate) unknown: bool,
    pub(crate) created_at: i64,
    pub(crate) started_at: i64,
    pub(crate) finished_at: i64,
    pub(crate) exit_code: i32,
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) image_id: String,
    pub(crate) image_name: String,
    pub(crate) log_path: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) stop_signal: i32,
}

impl Container {
    pub(super) fn new(record: ContainerRecord, config: ContainerConfig) -> Self {
        Self {
            id: record.id.clone(),
            pod_id: record.pod_id.clone(),
            config: Arc::new(config),
            exited: watch::Sender::new(record.phase() == Phase::Exited),
            record: Recorded::new(record),
            kill_at: watch::Sender::new(None),
            busy: tokio::sync::Mutex::new(()),
            spec: tokio::sync::OnceCell::new(),
            pid: AtomicI32::new(0),
            unknown: AtomicBool::new(false),
            cpu_sample: Mutex::new(None),
        }
    }

    pub(crate) fn status(&self) -> Status {
        self.record.read(|r| Status {
            phase: r.phase(),
            unknown: self.is_unknown(),
            created_at: r.created_at_ns,
            started_at: r.started_at_ns,
            finished_at: r.finished_at_ns,
            exit_code: r.exit_code,
            reason: r.reason.clone(),
            message: r.message.clone(),
            image_id: r.image_id.clone(),
            image_name: r.image_name.clone(),
            log_path: r.log_path.clone(),
            uid: r.uid,
            gid: r.gid,
            groups: r.supplemental_groups.clone(),
            stop_signal: r.stop_signal,
        })
    }

    pub(crate) fn phase(&self) -> Phase {
        self.record.read(ContainerRecord::phase)
    }

    pub(crate) fn is_unknown(&self) -> bool {
        self.unknown.load(Ordering::Acquire)
    }

    pub(super) fn set_unknown(&self, unknown: bool) {
        self.unknown.store(unknown, Ordering::Release);
    }

    pub(super) fn cgroup(&self) -> String {
        self.record.read(|r| r.cgroup.clone())
    }

    /// As they are now: an update replaces what the configuration says.
    pub(crate) fn resources(&self) -> Resources {
        self.record
            .read(|r| r.resources.as_ref().map(resources::of_record))
            .unwrap_or_else(|| self.config.resources.clone())
    }

    pub(crate) fn pid(&self) -> i32 {
        if self.has_ended() {
            0
        } else {
            self.pid.load(Ordering::Relaxed)
        }
    }

    pub(super) fn set_pid(&self, pid: i32) {
        self.pid.store(pid, Ordering::Relaxed);
    }

    pub(super) async fn save(&self, store: &StateStore) -> Result<(), Error> {
        let store = store.clone();
        self.record
            .save(move |record| store.save_container(record))
            .await
    }

    /// For what must go on without: the holder knows, and a full disk must not keep
    /// a container from its end.
    pub(super) async fn save_if_possible(&self, store: &StateStore) {
        if let Err(error) = self.save(store).await {
            tracing::error!(container = %self.id, %error, "cannot record what became of the container");
        }
    }

    /// Whether it runs only from now on. Called in a turn of the feed, as are the
    /// other changes of phase.
    pub(super) fn started(&self, at_ns: i64) -> bool {
        self.record.change(|r| {
            let starts = r.phase() == Phase::Created;
            if starts {
                r.set_phase(Phase::Running);
                r.started_at_ns = at_ns.max(r.created_at_ns);
            }
            starts
        })
    }

    /// Whether it ended only now.
    pub(super) fn could_not_start(&self, at_ns: i64, why: &str) -> bool {
        let ends = self.record.change(|r| {
            let ends = r.phase() != Phase::Exited;
            r.set_phase(Phase::Exited);
            r.finished_at_ns = at_ns.max(r.created_at_ns);
            r.exit_code = CANNOT_START;
            r.reason = "StartError".into();
            r.message = why.into();
            ends
        });
        self.exited.send_replace(true);
        ends
    }

    /// Whether it ended only now; a second end changes nothing.
    pub(super) fn finish(&self, end: &End<'_>) -> bool {
        let ends = self.record.change(|r| {
            if matches!(r.phase(), Phase::Exited | Phase::Removing) {
                return false;
            }
            r.set_phase(Phase::Exited);
            // The clock may have been set back meanwhile.
            r.finished_at_ns = end.at_ns.max(r.started_at_ns).max(r.created_at_ns);
            r.exit_code = end.code;
            r.reason = end.reason.into();
            r.message = end.message.into();
            true
        });
        self.set_unknown(false);
        self.exited.send_replace(true);
        ends
    }

    pub(super) fn has_ended(&self) -> bool {
        *self.exited.borrow()
    }

    pub(super) async fn wait_end(&self) {
        let mut exited = self.exited.subscribe();
        // The sender is in `self`: this ends only by an exit.
        drop(exited.wait_for(|ended| *ended).await);
    }
}

#[cfg(test)]
mod tests {
    use super::{Container, End};
    use carpel_proto::state::ContainerRecord;
    use carpel_proto::state::container_record::Phase;
    use carpel_spec::intent::ContainerConfig;

    const DAY: i64 = 86_400_000_000_000;

    fn created_at(at: i64) -> Container {
        let mut record = ContainerRecord {
            created_at_ns: at,
            ..ContainerRecord::default()
        };
        record.set_phase(Phase::Created);
        Container::new(record, ContainerConfig::default())
    }

    fn end(at_ns: i64) -> End<'static> {
        End {
            at_ns,
            code: 0,
            reason: "Completed",
            message: "",
        }
    }

    #[test]
    fn times_stay_in_order_when_the_clock_jumps() {
        let now = 20_000 * DAY;
        for (started, finished) in [
            (now - DAY, now + 1),
            (now + 1, now - DAY),
            (now + DAY, now),
            (now - DAY, now - 2 * DAY),
            (now + 1, now + 2),
        ] {
            let container = created_at(now);
            container.started(started);
            container.finish(&end(finished));
            let status = container.status();
            assert!(status.created_at <= status.started_at, "{status:?}");
            assert!(status.started_at <= status.finished_at, "{status:?}");
        }
    }

    #[test]
    fn what_never_ran_has_no_start() {
        let container = created_at(10);
        container.finish(&end(7));
        let status = container.status();
        assert_eq!((status.started_at, status.finished_at), (0, 10));
    }

    #[test]
    fn a_failed_start_ends_no_earlier_than_it_was_made() {
        let container = created_at(10);
        container.could_not_start(3, "no such file");
        assert_eq!(container.status().finished_at, 10);
        assert_eq!(container.phase(), Phase::Exited);
    }

    #[test]
    fn an_end_makes_the_unknown_known() {
        let container = created_at(1);
        container.set_unknown(true);
        container.finish(&end(2));
        assert!(!container.is_unknown());
    }
}
