//! Changes of pods and containers, told in one order to everybody who listens.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::view::{ContainerView, PodView};
use crate::error::Error;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Created,
    Started,
    Stopped,
    Deleted,
}

/// One change, and the whole pod as it was right after it.
#[derive(Debug)]
pub(crate) struct Event {
    /// Later than that of the event before.
    pub(crate) at_ns: i64,
    /// Id of the container, or of the pod, that changed.
    pub(crate) subject: String,
    pub(crate) change: Change,
    pub(crate) pod: PodView,
    pub(crate) containers: Vec<ContainerView>,
}

/// Nobody who listens is waited for: what a listener has not taken when its backlog
/// is full is lost to it, and it learns that.
#[derive(Debug)]
pub(crate) struct Feed {
    teller: Mutex<Teller>,
    backlog: usize,
}

#[derive(Debug)]
struct Teller {
    /// None once the feed is closed.
    listeners: Option<broadcast::Sender<Arc<Event>>>,
    last_ns: i64,
}

impl Feed {
    /// A listener that is `backlog` events behind is dropped.
    pub(super) fn new(backlog: usize) -> Self {
        Self {
            teller: Mutex::new(Teller {
                listeners: Some(broadcast::Sender::new(backlog)),
                last_ns: 0,
            }),
            backlog,
        }
    }

    /// Whoever changes what lists show does so within a turn, and tells it there: so
    /// events have the order of the changes, and each shows the state at its change.
    /// Short, and never held over an await.
    pub(super) fn turn(&self) -> Turn<'_> {
        Turn(self.lock())
    }

    /// Gives every event from now on.
    pub(crate) fn listen(&self) -> Result<Listener, Error> {
        match &self.lock().listeners {
            Some(listeners) => Ok(Listener {
                events: listeners.subscribe(),
                backlog: self.backlog,
            }),
            None => Err(ending()),
        }
    }

    /// Ends all listening: the daemon ends.
    pub(super) fn close(&self) {
        self.lock().listeners = None;
    }

    fn lock(&self) -> MutexGuard<'_, Teller> {
        self.teller.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) struct Turn<'a>(MutexGuard<'a, Teller>);

impl Turn<'_> {
    /// `now_ns` moves forward by as little as it must to be later than the last event.
    pub(super) fn tell(
        &mut self,
        now_ns: i64,
        subject: &str,
        change: Change,
        look: impl FnOnce() -> (PodView, Vec<ContainerView>),
    ) {
        let at_ns = now_ns.max(self.0.last_ns + 1);
        self.0.last_ns = at_ns;
        let Some(listeners) = &self.0.listeners else {
            return;
        };
        if listeners.receiver_count() == 0 {
            return;
        }
        let (pod, containers) = look();
        let event = Event {
            at_ns,
            subject: subject.to_owned(),
            change,
            pod,
            containers,
        };
        // Fails only when the last listener has gone just now.
        drop(listeners.send(Arc::new(event)));
    }
}

#[derive(Debug)]
pub(crate) struct Listener {
    events: broadcast::Receiver<Arc<Event>>,
    backlog: usize,
}

impl Listener {
    /// The next event; after an error there are no more.
    pub(crate) async fn next(&mut self) -> Result<Arc<Event>, Error> {
        self.events.recv().await.map_err(|error| match error {
            RecvError::Closed => ending(),
            RecvError::Lagged(missed) => Error::Exhausted(format!(
                "this reader of events is too slow: {missed} events more than its backlog of \
                 {} came; list the pods and listen anew",
                self.backlog
            )),
        })
    }
}

fn ending() -> Error {
    Error::Unavailable("the daemon is ending".into())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use carpel_spec::intent::PodConfig;

    use super::super::view::PodView;
    use super::{Change, Feed};
    use crate::error::Error;

    fn tell(feed: &Feed, now_ns: i64, subject: &str) {
        let pod = PodView {
            id: "pod".into(),
            config: Arc::new(PodConfig::default()),
            ready: true,
            created_at: 1,
            addresses: Vec::new(),
            runtime_handler: String::new(),
            cgroup: String::new(),
        };
        feed.turn()
            .tell(now_ns, subject, Change::Started, || (pod, Vec::new()));
    }

    #[tokio::test]
    async fn times_only_grow_even_when_the_clock_goes_back() {
        let feed = Feed::new(8);
        let mut listener = feed.listen().unwrap();
        for now in [100, 100, 50, 200] {
            tell(&feed, now, "c");
        }
        let mut times = Vec::new();
        for _ in 0..4 {
            times.push(listener.next().await.unwrap().at_ns);
        }
        assert_eq!(times, [100, 101, 102, 200]);
    }

    #[tokio::test]
    async fn a_listener_hears_what_comes_after_it_only() {
        let feed = Feed::new(8);
        tell(&feed, 1, "before");
        let mut listener = feed.listen().unwrap();
        tell(&feed, 2, "after");
        assert_eq!(listener.next().await.unwrap().subject, "after");
    }

    #[tokio::test]
    async fn a_slow_listener_is_told_so_and_others_hear_on() {
        let feed = Feed::new(4);
        let mut slow = feed.listen().unwrap();
        let mut quick = feed.listen().unwrap();
        for n in 1..=10 {
            tell(&feed, n, &n.to_string());
            assert_eq!(quick.next().await.unwrap().subject, n.to_string());
        }
        let error = slow.next().await.unwrap_err();
        assert!(matches!(error, Error::Exhausted(_)), "{error}");
        assert!(error.to_string().contains("too slow: 6 events"), "{error}");
    }

    #[tokio::test]
    async fn after_the_last_event_of_a_closed_feed_comes_its_end() {
        let feed = Feed::new(4);
        let mut listener = feed.listen().unwrap();
        tell(&feed, 1, "last");
        feed.close();
        assert_eq!(listener.next().await.unwrap().subject, "last");
        assert!(matches!(listener.next().await, Err(Error::Unavailable(_))));
        assert!(matches!(feed.listen(), Err(Error::Unavailable(_))));
    }
}
