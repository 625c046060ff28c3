//! Everything that is counted, under one name each.

use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use carpel_images::engine::{Error, ImageEngine, ImageId, LayerState, Progress, PullRequest};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

type Labels<const N: usize> = [(&'static str, String); N];
pub(super) type Gauges<const N: usize> = Family<Labels<N>, Gauge>;
type Histograms<const N: usize> = Family<Labels<N>, Histogram, fn() -> Histogram>;

/// Counters of one daemon. Clones of the families inside count together.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    calls: Family<Labels<2>, Counter>,
    call_seconds: Histograms<1>,
    stages: Histograms<2>,
    pulls: Family<Labels<1>, Counter>,
    pull_seconds: Histogram,
    pull_bytes: Counter,
    recovery: Gauge<f64, AtomicU64>,
    pub(super) node: NodeGauges,
}

/// What is measured when somebody looks.
#[derive(Debug, Default)]
pub(super) struct NodeGauges {
    pub(super) pods: Gauges<1>,
    pub(super) containers: Gauges<1>,
    pub(super) holders: Gauge,
    pub(super) seccomp: Gauge,
    pub(super) pool_used: Gauges<1>,
    pub(super) pool_total: Gauges<1>,
    pub(super) leftovers: Gauges<1>,
    pub(super) leftover_failures: Gauge,
}

/// From half a millisecond to half a minute.
fn latency() -> Histogram {
    Histogram::new(exponential_buckets(0.0005, 2.0, 16))
}

/// From 50 ms to a quarter of an hour.
fn long() -> Histogram {
    Histogram::new(exponential_buckets(0.05, 2.0, 15))
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("carpel"),
            calls: Family::default(),
            call_seconds: Family::new_with_constructor(latency),
            stages: Family::new_with_constructor(latency),
            pulls: Family::default(),
            pull_seconds: long(),
            pull_bytes: Counter::default(),
            recovery: Gauge::default(),
            node: NodeGauges::default(),
        };
        metrics.register_counted();
        metrics.register_looked_at();
        metrics
    }

    fn register_counted(&mut self) {
        let all = &mut self.registry;
        let help = "Calls by method and gRPC code; of a stream, its beginning";
        all.register("rpc_calls", help, self.calls.clone());
        let help = "Time until a call was answered";
        let seconds = || Unit::Seconds;
        all.register_with_unit("rpc_duration", help, seconds(), self.call_seconds.clone());
        let help = "Time that the stages of an operation took";
        all.register_with_unit("operation_stage", help, seconds(), self.stages.clone());
        all.register("image_pulls", "Pulls by outcome", self.pulls.clone());
        let help = "Time that pulls took that succeeded";
        all.register_with_unit("image_pull", help, seconds(), self.pull_seconds.clone());
        let help = "Compressed bytes of layers that were fetched";
        all.register_with_unit("image_pull", help, Unit::Bytes, self.pull_bytes.clone());
        let help = "Time that taking up what an earlier daemon left took";
        all.register_with_unit("recovery", help, seconds(), self.recovery.clone());
    }

    fn register_looked_at(&mut self) {
        let (all, node) = (&mut self.registry, &self.node);
        all.register("pods", "Pods by state", node.pods.clone());
        all.register("containers", "Containers by state", node.containers.clone());
        let help = "Pods whose holder is connected";
        all.register("holders", help, node.holders.clone());
        let help = "Compiled seccomp programs that are kept";
        all.register("seccomp_programs", help, node.seccomp.clone());
        let help = "Pod addresses given out, by pod CIDR";
        all.register("pod_addresses_used", help, node.pool_used.clone());
        let help = "Pod addresses there are, by pod CIDR";
        all.register("pod_addresses_total", help, node.pool_total.clone());
        let help =
            "What of ours stands on the node and has no record, by kind; 0 on a healthy node";
        all.register("leftovers", help, node.leftovers.clone());
        let help = "Places that could not be looked at for leftovers";
        all.register("leftover_failures", help, node.leftover_failures.clone());
    }

    pub(super) fn call(&self, method: &str, code: &str, took: Duration) {
        let method = ("method", method.to_owned());
        self.call_seconds
            .get_or_create(&[method.clone()])
            .observe(took.as_secs_f64());
        self.calls
            .get_or_create(&[method, ("code", code.to_owned())])
            .inc();
    }

    pub(crate) fn recovered(&self, took: Duration) {
        self.recovery.set(took.as_secs_f64());
    }

    /// Begins to time an operation's stages.
    pub(crate) fn stages(&self, operation: &'static str) -> Stages<'_> {
        Stages {
            metrics: self,
            operation,
            begin: Instant::now(),
        }
    }

    /// Pulls, and counts it.
    pub(crate) async fn pull(
        &self,
        engine: &dyn ImageEngine,
        request: PullRequest,
    ) -> Result<ImageId, Error> {
        let begin = Instant::now();
        let request = PullRequest {
            progress: std::sync::Arc::new(CountBytes {
                inner: request.progress,
                bytes: self.pull_bytes.clone(),
                seen: std::sync::Mutex::default(),
            }),
            ..request
        };
        let pulled = engine.pull(request).await;
        let outcome = if pulled.is_ok() { "ok" } else { "error" };
        let outcome = [("outcome", outcome.to_owned())];
        self.pulls.get_or_create(&outcome).inc();
        if pulled.is_ok() {
            self.pull_seconds.observe(begin.elapsed().as_secs_f64());
        }
        pulled
    }

    /// The page as Prometheus reads it.
    pub(super) fn page(&self) -> Result<String, std::fmt::Error> {
        let mut page = String::new();
        encode(&mut page, &self.registry)?;
        Ok(page)
    }
}

/// Times one stage after the other.
#[derive(Debug)]
pub(crate) struct Stages<'a> {
    metrics: &'a Metrics,
    operation: &'static str,
    begin: Instant,
}

impl Stages<'_> {
    /// What went on since the last one was `stage`.
    pub(crate) fn done(&mut self, stage: &'static str) {
        let labels = [
            ("operation", self.operation.to_owned()),
            ("stage", stage.to_owned()),
        ];
        let now = Instant::now();
        let took = now - self.begin;
        self.metrics
            .stages
            .get_or_create(&labels)
            .observe(took.as_secs_f64());
        self.begin = now;
    }
}

/// Adds up what layers' reports say was fetched.
#[derive(Debug)]
struct CountBytes {
    inner: std::sync::Arc<dyn Progress>,
    bytes: Counter,
    seen: std::sync::Mutex<std::collections::HashMap<String, u64>>,
}

impl Progress for CountBytes {
    fn layer(&self, digest: &str, state: LayerState) {
        if let LayerState::Fetching { current, .. } = state {
            let seen = self.seen.lock();
            let mut seen = seen.unwrap_or_else(std::sync::PoisonError::into_inner);
            let before = seen.insert(digest.to_owned(), current).unwrap_or(0);
            // After a retry it begins anew.
            self.bytes.inc_by(current.saturating_sub(before));
        }
        self.inner.layer(digest, state);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use carpel_images::engine::{LayerState, NoProgress, Progress};

    use super::{CountBytes, Metrics};

    #[test]
    fn what_was_counted_stands_on_the_page() {
        let metrics = Metrics::new();
        metrics.call("Version", "OK", Duration::from_millis(3));
        metrics.recovered(Duration::from_millis(1500));
        let mut stages = metrics.stages("run_pod_sandbox");
        stages.done("holder");
        stages.done("network");
        let page = metrics.page().unwrap();
        for line in [
            "carpel_rpc_calls_total{method=\"Version\",code=\"OK\"} 1",
            "carpel_rpc_duration_seconds_count{method=\"Version\"} 1",
            "carpel_recovery_seconds 1.5",
            "carpel_operation_stage_seconds_count{operation=\"run_pod_sandbox\",stage=\"network\"} 1",
            "# EOF",
        ] {
            assert!(page.contains(line), "no {line} in\n{page}");
        }
    }

    #[test]
    fn bytes_of_a_layer_are_counted_once() {
        let count = CountBytes {
            inner: Arc::new(NoProgress),
            bytes: Default::default(),
            seen: Default::default(),
        };
        for current in [10, 30, 30, 5, 40] {
            count.layer("a", LayerState::Fetching { current, total: 40 });
        }
        count.layer("b", LayerState::Exists);
        assert_eq!(count.bytes.get(), 30 + 35);
    }
}
