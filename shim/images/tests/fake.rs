//! The fake keeps the contract of engines, and fails when told to.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use carpel_images::engine::{Error, ImageEngine};
use carpel_images::testing::contract::{self, Trouble, World};
use carpel_images::testing::{Call, FakeEngine, TestImage};

struct Fake(FakeEngine);

#[async_trait]
impl World for Fake {
    fn engine(&self) -> Arc<dyn ImageEngine> {
        Arc::new(self.0.clone())
    }

    fn hosts(&self) -> [String; 2] {
        ["one.example".into(), "two.example".into()]
    }

    async fn publish(&self, reference: &str, image: &TestImage) {
        self.0.publish(reference, image).unwrap();
    }

    async fn trouble(&self, reference: &str, trouble: Trouble) {
        let name = reference.to_owned();
        let error = move || {
            let (registry, reference, why) = ("r".into(), name.clone(), "said so".into());
            match trouble {
                Trouble::Missing => Error::NotFound(reference),
                Trouble::Denied => Error::Denied {
                    registry,
                    reference,
                    why,
                },
                Trouble::Unavailable => Error::Unavailable { registry, why },
                Trouble::Corrupt => Error::Corrupt { reference, why },
            }
        };
        self.0.refuse(reference, error).unwrap();
    }
}

#[tokio::test]
async fn the_fake_keeps_the_contract() {
    contract::run(|| async { Fake(FakeEngine::new()) }).await;
}

#[tokio::test]
async fn faults_come_as_often_as_told() {
    let fake = FakeEngine::new();
    fake.fail(Call::List, 2, || Error::Exhausted("told to".into()));
    for _ in 0..2 {
        assert!(matches!(fake.list().await, Err(Error::Exhausted(_))));
    }
    assert!(fake.list().await.unwrap().is_empty());
    assert_eq!(fake.calls(Call::List), 3);
    fake.delay(Call::List, Duration::from_secs(60));
    let wait = Duration::from_millis(10);
    assert!(tokio::time::timeout(wait, fake.list()).await.is_err());
}
