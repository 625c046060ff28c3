//! The node as it is at the moment somebody asks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use super::Metrics;
use super::registry::Gauges;
use crate::leftovers::{Kind, Leftover, Places, Report, look};
use crate::pod::Runtime;

/// Scrapes and doctors closer together than this get the same answer.
const FRESH: Duration = Duration::from_secs(1);
/// A look that takes longer goes on, but nobody waits for it.
const PATIENCE: Duration = Duration::from_secs(10);

const POD_STATES: [&str; 2] = ["ready", "notready"];
const CONTAINER_STATES: [&str; 4] = ["created", "running", "exited", "unknown"];

/// Looks for leftovers, one look at a time.
#[derive(Debug)]
pub(crate) struct NodeView {
    runtime: Arc<Runtime>,
    places: Places,
    last: Mutex<Option<(Instant, Arc<Report>)>>,
}

/// Shared by the page and the admin service.
pub(crate) fn leftovers_view(runtime: Arc<Runtime>, places: Places) -> Arc<NodeView> {
    Arc::new(NodeView {
        runtime,
        places,
        last: Mutex::new(None),
    })
}

impl NodeView {
    /// What belongs to no record, not older than a second.
    pub(crate) async fn leftovers(self: &Arc<Self>) -> Arc<Report> {
        let this = Arc::clone(self);
        let look = tokio::spawn(async move { this.look_again().await });
        match tokio::time::timeout(PATIENCE, look).await {
            Ok(Ok(report)) => report,
            Ok(Err(error)) => failed(format!("the look crashed: {error}")),
            Err(_) => failed(format!("the look takes longer than {PATIENCE:?}")),
        }
    }

    async fn look_again(&self) -> Arc<Report> {
        let mut last = self.last.lock().await;
        if let Some((at, report)) = last.as_ref()
            && at.elapsed() < FRESH
        {
            return Arc::clone(report);
        }
        let places = self.places.clone();
        let looked = tokio::task::spawn_blocking(move || look(&places)).await;
        let mut report = looked.unwrap_or_else(|error| Report {
            failures: vec![format!("the look crashed: {error}")],
            ..Report::default()
        });
        for id in self.runtime.lost_pods() {
            let what = "its holder ended; it waits to be stopped and removed";
            report.leftovers.push(Leftover::new(Kind::Pod, id, what));
        }
        let report = Arc::new(report);
        *last = Some((Instant::now(), Arc::clone(&report)));
        report
    }

    /// Sets every gauge that is looked at.
    pub(super) async fn measure(self: &Arc<Self>, metrics: &Metrics) {
        let node = &metrics.node;
        let pods = self.runtime.pods();
        let ready = |pod: &Arc<crate::pod::Pod>| POD_STATES[usize::from(!pod.is_ready())];
        count(&node.pods, &POD_STATES, pods.iter().map(ready));
        let containers = self.runtime.containers();
        let states = containers.iter().map(|container| state(container));
        count(&node.containers, &CONTAINER_STATES, states);
        set(
            &node.holders,
            pods.iter().filter(|pod| pod.has_holder()).count(),
        );
        set(&node.seccomp, self.runtime.seccomp_programs());
        for pool in self.runtime.network().pools() {
            let cidr = [("cidr", pool.cidr.to_string())];
            let number = |n| i64::try_from(n).unwrap_or(i64::MAX);
            node.pool_used.get_or_create(&cidr).set(number(pool.used));
            node.pool_total.get_or_create(&cidr).set(number(pool.total));
        }
        let report = self.leftovers().await;
        for (kind, number) in report.counts() {
            let gauge = node
                .leftovers
                .get_or_create_owned(&[("kind", kind.word().to_owned())]);
            set(&gauge, number);
        }
        set(&node.leftover_failures, report.failures.len());
    }
}

fn failed(why: String) -> Arc<Report> {
    Arc::new(Report {
        failures: vec![why],
        ..Report::default()
    })
}

fn set(gauge: &prometheus_client::metrics::gauge::Gauge, number: usize) {
    gauge.set(i64::try_from(number).unwrap_or(i64::MAX));
}

fn state(container: &crate::pod::Container) -> &'static str {
    use carpel_proto::state::container_record::Phase;
    match container.phase() {
        Phase::Created => "created",
        Phase::Running => "running",
        Phase::Exited => "exited",
        Phase::Creating | Phase::Removing => "unknown",
    }
}

/// How many there are of each state, those with none too.
fn count(gauges: &Gauges<1>, states: &[&'static str], found: impl Iterator<Item = &'static str>) {
    let mut counts: BTreeMap<_, _> = states.iter().map(|state| (*state, 0)).collect();
    found.for_each(|state| *counts.entry(state).or_default() += 1);
    for (state, number) in counts {
        let gauge = gauges.get_or_create_owned(&[("state", state.to_owned())]);
        set(&gauge, number);
    }
}

#[cfg(test)]
mod tests {
    use super::{Gauges, POD_STATES, count};

    #[test]
    fn a_state_that_nothing_is_in_counts_as_none() {
        let gauges = Gauges::<1>::default();
        let of = |state: &str| {
            gauges
                .get_or_create_owned(&[("state", state.to_owned())])
                .get()
        };
        count(&gauges, &POD_STATES, ["ready", "ready"].into_iter());
        assert_eq!((of("ready"), of("notready")), (2, 0));
        count(&gauges, &POD_STATES, ["notready"].into_iter());
        assert_eq!((of("ready"), of("notready")), (0, 1));
    }
}
