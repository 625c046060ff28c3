//! What is told of pods and containers as it happens.

use std::collections::BTreeMap;
use std::time::Duration;

use carpel_conformance::{Node, Settings, spec};
use carpel_proto::cri::ContainerEventType as Type;
use carpel_proto::cri::{
    ContainerEventResponse as Event, ContainerState, ContainerStatus, GetEventsRequest,
    PodSandboxState,
};
use futures_util::future::{join_all, try_join_all};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tonic::{Code, Status, Streaming};

use crate::checks::{Outcome, Pod, node, until};
use crate::whole;

const PATIENCE: Duration = Duration::from_secs(30);

/// One reader of events, on a connection of its own.
struct Reader(Streaming<Event>);

impl Reader {
    async fn open(node: &Node) -> anyhow::Result<Self> {
        let mut client = whole::runtime(node).await?;
        let stream = client.get_container_events(GetEventsRequest {}).await?;
        Ok(Self(stream.into_inner()))
    }

    async fn next(&mut self) -> Result<Event, Status> {
        match tokio::time::timeout(PATIENCE, self.0.message()).await {
            Ok(Ok(Some(event))) => Ok(event),
            Ok(Ok(None)) => Err(Status::ok("the stream ended")),
            Ok(Err(status)) => Err(status),
            Err(_) => Err(Status::aborted("nothing in 30 s")),
        }
    }

    async fn hear(&mut self, count: usize) -> anyhow::Result<Vec<Event>> {
        let mut events = Vec::with_capacity(count);
        while events.len() < count {
            events.push(self.next().await?);
        }
        Ok(events)
    }

    /// Hears until the stream breaks.
    async fn hear_all(&mut self) -> (Vec<Event>, Status) {
        let mut events = Vec::new();
        loop {
            match self.next().await {
                Ok(event) => events.push(event),
                Err(status) => return (events, status),
            }
        }
    }
}

fn names(events: &[Event]) -> Vec<(&str, Type)> {
    events
        .iter()
        .map(|event| (event.container_id.as_str(), event.container_event_type()))
        .collect()
}

#[track_caller]
fn status<'a>(event: &'a Event, container: &str) -> &'a ContainerStatus {
    let mut all = event.containers_statuses.iter();
    all.find(|status| status.id == container)
        .unwrap_or_else(|| panic!("{container} is not in {event:?}"))
}

#[track_caller]
fn pod_state(event: &Event) -> PodSandboxState {
    event.pod_sandbox_status.as_ref().expect("a pod").state()
}

#[track_caller]
fn assert_later_and_later(events: &[Event]) {
    for pair in events.windows(2) {
        assert!(pair[0].created_at < pair[1].created_at, "{pair:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_and_its_container_are_told_from_beginning_to_end() -> Outcome {
    let node = node().await?;
    let mut reader = Reader::open(&node).await?;
    let pod = Pod::run(&node, spec::pod("told")).await?;
    let id = pod.start(&node, &spec::shell("short", "exit 3")).await?;
    node.cri().wait_exit(&id).await?;
    node.cri().remove(&id).await?;
    node.cri().stop_pod(&pod.id).await?;
    node.cri().remove_pod(&pod.id).await?;
    let events = reader.hear(8).await?;
    assert_eq!(
        names(&events),
        [
            (&*pod.id, Type::ContainerCreatedEvent),
            (&*pod.id, Type::ContainerStartedEvent),
            (&*id, Type::ContainerCreatedEvent),
            (&*id, Type::ContainerStartedEvent),
            (&*id, Type::ContainerStoppedEvent),
            (&*id, Type::ContainerDeletedEvent),
            (&*pod.id, Type::ContainerStoppedEvent),
            (&*pod.id, Type::ContainerDeletedEvent),
        ]
    );
    assert_later_and_later(&events);
    let metadata = pod.config.metadata.as_ref().expect("metadata");
    for event in &events {
        let status = event.pod_sandbox_status.as_ref().expect("a pod");
        assert_eq!(status.id, pod.id);
        assert_eq!(
            status.metadata.as_ref().expect("metadata").uid,
            metadata.uid
        );
    }
    let states: Vec<_> = events.iter().map(pod_state).collect();
    assert_eq!(states[..6], [PodSandboxState::SandboxReady; 6]);
    assert_eq!(states[6..], [PodSandboxState::SandboxNotready; 2]);

    let [created, started, stopped] = [2, 3, 4].map(|n| status(&events[n], &id));
    assert_eq!(created.state(), ContainerState::ContainerCreated);
    assert_eq!((created.started_at, created.finished_at), (0, 0));
    assert_eq!(started.state(), ContainerState::ContainerRunning);
    assert!(started.started_at >= created.created_at);
    assert_eq!(stopped.state(), ContainerState::ContainerExited);
    assert_eq!((stopped.exit_code, stopped.reason.as_str()), (3, "Error"));
    assert!(stopped.finished_at >= started.started_at);
    assert!(events[5].containers_statuses.is_empty());
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_event_shows_the_other_containers_of_its_pod_too() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("two")).await?;
    let other = pod.start(&node, &spec::sleeper("other")).await?;
    let mut reader = Reader::open(&node).await?;
    let id = pod.start(&node, &spec::sleeper("one")).await?;
    node.cri().stop(&id, 10).await?;
    for event in reader.hear(3).await? {
        assert_eq!(event.container_id, id);
        assert_eq!(event.containers_statuses.len(), 2);
        let other = status(&event, &other);
        assert_eq!(other.state(), ContainerState::ContainerRunning);
    }
    drop(reader);
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_cannot_start_is_told_as_stopped_only() -> Outcome {
    let node = node().await?;
    if !matches!(node.handler(), "" | "native") {
        eprintln!(
            "skipped: {} tells of the program at its creation",
            node.handler()
        );
        return node.finish().await;
    }
    let pod = Pod::run(&node, spec::pod("unable")).await?;
    let mut reader = Reader::open(&node).await?;
    let config = spec::container("unable", spec::BUSYBOX, &["/no/such/program"]);
    let id = node.cri().create(&pod.id, &config, &pod.config).await?;
    let refused = node.cri().start(&id).await;
    assert!(refused.is_err(), "{refused:?}");
    node.cri().remove(&id).await?;
    let events = reader.hear(3).await?;
    assert_eq!(
        names(&events),
        [
            (&*id, Type::ContainerCreatedEvent),
            (&*id, Type::ContainerStoppedEvent),
            (&*id, Type::ContainerDeletedEvent),
        ]
    );
    assert_eq!(status(&events[1], &id).reason, "StartError");
    assert_eq!(status(&events[1], &id).exit_code, 128);
    drop(reader);
    node.finish().await
}

/// Creates, starts, awaits and removes.
async fn short_life(node: &Node, pod: &Pod, name: &str) -> anyhow::Result<()> {
    let id = pod.start(node, &spec::shell(name, "true")).await?;
    node.cri().wait_exit(&id).await?;
    Ok(node.cri().remove(&id).await?)
}

/// A pod with short-lived containers, all at once, made and removed.
async fn pod_of_short_lives(node: &Node, number: usize, containers: usize) -> anyhow::Result<()> {
    let pod = Pod::run(node, spec::pod(&format!("storm-{number}"))).await?;
    let names: Vec<String> = (0..containers).map(|n| format!("c{n}")).collect();
    try_join_all(names.iter().map(|name| short_life(node, &pod, name))).await?;
    node.cri().stop_pod(&pod.id).await?;
    Ok(node.cri().remove_pod(&pod.id).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_is_told_to_all_readers_in_one_order() -> Outcome {
    const PODS: usize = 4;
    const CONTAINERS: usize = 6;
    let node = node().await?;
    let mut readers = Vec::new();
    for _ in 0..5 {
        readers.push(Reader::open(&node).await?);
    }
    try_join_all((0..PODS).map(|number| pod_of_short_lives(&node, number, CONTAINERS))).await?;
    let count = PODS * (CONTAINERS + 1) * 4;
    let heard = join_all(readers.iter_mut().map(|reader| reader.hear(count))).await;
    let heard: Vec<Vec<Event>> = heard.into_iter().collect::<anyhow::Result<_>>()?;
    for other in &heard[1..] {
        assert_eq!(other, &heard[0]);
    }
    assert_later_and_later(&heard[0]);
    let mut lives: BTreeMap<&str, Vec<Type>> = BTreeMap::new();
    for (id, kind) in names(&heard[0]) {
        lives.entry(id).or_default().push(kind);
    }
    assert_eq!(lives.len(), PODS * (CONTAINERS + 1));
    for (id, life) in lives {
        let whole = [
            Type::ContainerCreatedEvent,
            Type::ContainerStartedEvent,
            Type::ContainerStoppedEvent,
            Type::ContainerDeletedEvent,
        ];
        assert_eq!(life, whole, "{id}");
    }
    drop(readers);
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_falls_behind_is_dropped_and_the_others_hear_on() -> Outcome {
    const CONTAINERS: usize = 24;
    let settings = Settings::default().images(&[spec::BUSYBOX]);
    let node = Node::start(settings.event_backlog(16)).await?;
    let mut config = spec::pod("behind");
    // So that few events fill what lies between the daemon and the reader.
    config
        .annotations
        .insert("long".into(), "x".repeat(64 << 10));
    let pod = Pod::run(&node, config).await?;
    let mut slow = Reader::open(&node).await?;
    let mut quick = Reader::open(&node).await?;
    let names: Vec<String> = (0..CONTAINERS).map(|n| format!("c{n}")).collect();
    let (made, heard) = tokio::join!(
        async {
            for name in &names {
                short_life(&node, &pod, name).await?;
            }
            anyhow::Ok(())
        },
        quick.hear(CONTAINERS * 4)
    );
    made?;
    assert_later_and_later(&heard?);
    let (events, end) = slow.hear_all().await;
    assert_eq!(end.code(), Code::ResourceExhausted, "{end}");
    assert!(end.message().contains("too slow"), "{end}");
    assert!(events.len() < CONTAINERS * 4, "{}", events.len());
    assert_later_and_later(&events);
    drop((slow, quick));
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_a_new_daemon_tells_what_happens_from_then_on() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("kept")).await?;
    let kept = pod.start(&node, &spec::sleeper("kept")).await?;
    let gone = pod
        .start(&node, &spec::shell("gone", "sleep 1; exit 7"))
        .await?;
    let mut old = Reader::open(&node).await?;
    node.kill()?;
    let (told, end) = old.hear_all().await;
    assert!(told.is_empty(), "{told:?}");
    assert_ne!(end.code(), Code::Aborted, "the old stream is still open");
    tokio::time::sleep(Duration::from_millis(1200)).await;
    node.restart().await?;

    // A stream and then a list: together they miss nothing and tell nothing twice.
    let mut reader = Reader::open(&node).await?;
    let ended = node.cri().container(&gone).await?;
    assert_eq!((ended.exit_code, ended.finished_at > 0), (7, true));
    node.cri().stop(&kept, 10).await?;
    node.cri().remove(&gone).await?;
    let events = reader.hear(2).await?;
    assert_eq!(
        names(&events),
        [
            (&*kept, Type::ContainerStoppedEvent),
            (&*gone, Type::ContainerDeletedEvent),
        ]
    );
    assert_eq!(status(&events[0], &gone).exit_code, 7);
    drop(reader);
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_are_told_when_the_daemon_ends_and_do_not_hold_it_up() -> Outcome {
    let node = node().await?;
    let mut readers = Vec::new();
    for _ in 0..3 {
        readers.push(Reader::open(&node).await?);
    }
    node.stop()?;
    for mut reader in readers {
        let (told, end) = reader.hear_all().await;
        assert!(told.is_empty(), "{told:?}");
        assert_eq!(end.code(), Code::Unavailable, "{end}");
    }
    node.restart().await?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_holder_is_told_as_that_of_its_pod_and_containers() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("orphan")).await?;
    let id = pod.start(&node, &spec::sleeper("orphan")).await?;
    let mut reader = Reader::open(&node).await?;
    let holder = crate::info::of_pod(&node, &pod.id).await?["pid"]
        .as_i64()
        .expect("the holder's pid");
    kill(Pid::from_raw(i32::try_from(holder)?), Signal::SIGKILL)?;
    let events = reader.hear(2).await?;
    assert_eq!(
        names(&events),
        [
            (&*pod.id, Type::ContainerStoppedEvent),
            (&*id, Type::ContainerStoppedEvent),
        ]
    );
    assert_eq!(status(&events[1], &id).reason, "HolderGone");
    until("the pod is NOTREADY", async || {
        let status = node.cri().pod(&pod.id).await?;
        Ok(status.state() == k8s_cri::v1::PodSandboxState::SandboxNotready)
    })
    .await?;
    drop(reader);
    node.finish().await
}
