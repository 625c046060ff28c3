//! Changes that lists show: each is made and told in one turn of the feed.

use std::sync::Arc;

use carpel_proto::holder::ContainerState;
use carpel_proto::state::container_record::Phase as ContainerPhase;
use carpel_proto::state::pod_record::Phase;

use super::container::{Container, End};
use super::feed::{Change, Turn};
use super::ids::now_ns;
use super::pod::Pod;
use super::runtime::Runtime;

impl Runtime {
    /// From now on lists show the pod.
    pub(super) fn show_pod(&self, pod: &Arc<Pod>) {
        let mut turn = self.feed.turn();
        self.index.add_pod(pod);
        tell(&mut turn, pod, &pod.id, Change::Created);
        let state = if pod.is_ready() {
            Change::Started
        } else {
            Change::Stopped
        };
        tell(&mut turn, pod, &pod.id, state);
    }

    pub(super) fn hide_pod(&self, pod: &Pod) {
        let mut turn = self.feed.turn();
        if self.index.remove_pod(pod) {
            tell(&mut turn, pod, &pod.id, Change::Deleted);
        }
    }

    /// From now on lists show the container.
    pub(super) fn show_container(&self, pod: &Pod, container: &Arc<Container>) {
        let mut turn = self.feed.turn();
        pod.add_container(Arc::clone(container));
        self.index.add_container(container);
        tell(&mut turn, pod, &container.id, Change::Created);
    }

    pub(super) fn hide_container(&self, pod: &Pod, container: &Container) {
        let mut turn = self.feed.turn();
        pod.forget_container(&container.id);
        if self.index.remove_container(container) {
            tell(&mut turn, pod, &container.id, Change::Deleted);
        }
    }
}

impl Pod {
    /// Whether it was ready until now.
    pub(super) fn stopped(&self) -> bool {
        let mut turn = self.feed.turn();
        let was_ready = self.is_ready_by_record();
        if was_ready {
            self.set_phase(Phase::NotReady);
            tell(&mut turn, self, &self.id, Change::Stopped);
        }
        was_ready
    }

    /// What its holder says is known now, or never will be. Listeners took it for not
    /// ready, and what runs in it for unknown.
    pub(super) fn recovered(&self) {
        let mut turn = self.feed.turn();
        self.set_recovering(false);
        if !self.is_ready() {
            return;
        }
        tell(&mut turn, self, &self.id, Change::Started);
        for container in self.containers() {
            if container.phase() == ContainerPhase::Running && container.is_unknown() {
                container.set_unknown(false);
                tell(&mut turn, self, &container.id, Change::Started);
            }
        }
    }

    pub(super) fn container_started(&self, container: &Container, at_ns: i64) {
        let mut turn = self.feed.turn();
        if container.started(at_ns) {
            tell(&mut turn, self, &container.id, Change::Started);
        }
    }

    /// Its program is not there or cannot be executed.
    pub(super) fn container_could_not_start(&self, container: &Container, why: &str) {
        let mut turn = self.feed.turn();
        if container.could_not_start(now_ns(), why) {
            tell(&mut turn, self, &container.id, Change::Stopped);
        }
    }

    /// Takes the end of the container's first process as the holder told it.
    /// A second telling changes nothing.
    pub(super) fn container_ended(
        &self,
        container: &Container,
        state: &ContainerState,
        oom_killed: bool,
    ) {
        let reason = match (oom_killed, state.exit_code) {
            // It went on without the process that was killed, and did its work.
            (_, 0) => "Completed",
            (true, _) => "OOMKilled",
            (false, _) => "Error",
        };
        let end = End {
            at_ns: state.exited_at_ns,
            code: state.exit_code,
            reason,
            message: "",
        };
        self.finish(container, state.started_at_ns, &end);
    }

    /// An end that no holder told.
    pub(super) fn container_lost(
        &self,
        container: &Container,
        code: i32,
        reason: &str,
        message: &str,
    ) {
        let end = End {
            at_ns: now_ns(),
            code,
            reason,
            message,
        };
        self.finish(container, 0, &end);
    }

    /// The news of the start may come after that of the end.
    fn finish(&self, container: &Container, started_at_ns: i64, end: &End<'_>) {
        let mut turn = self.feed.turn();
        if started_at_ns != 0 && container.started(started_at_ns) {
            tell(&mut turn, self, &container.id, Change::Started);
        }
        if container.finish(end) {
            tell(&mut turn, self, &container.id, Change::Stopped);
        }
    }
}

fn tell(turn: &mut Turn<'_>, pod: &Pod, subject: &str, change: Change) {
    turn.tell(now_ns(), subject, change, || {
        let containers = pod.containers();
        (pod.view(), containers.iter().map(|c| c.view()).collect())
    });
}
