//! An engine in memory, which fails when told to.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use carpel_sys::mount;

use crate::engine::{
    Error, FsUsage, Image, ImageEngine, ImageId, LayerState, LayerUsage, PullRequest, Rootfs, Usage,
};
use crate::image::{chain_ids, parse};
use crate::reference::{Digest, ImageQuery, Reference};
use crate::store::check_key;
use crate::unpack::{Limits, unpack};

use super::TestImage;

/// The calls of an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Call {
    Pull,
    Status,
    List,
    Remove,
    Usage,
    Prepare,
    Release,
    WritableUsage,
    Prepared,
}

type MakeError = Box<dyn Fn() -> Error + Send>;

#[derive(Default)]
struct State {
    published: HashMap<String, TestImage>,
    refused: HashMap<String, MakeError>,
    images: BTreeMap<Digest, Entry>,
    prepared: BTreeMap<String, Prepared>,
    faults: HashMap<Call, (usize, MakeError)>,
    delays: HashMap<Call, Duration>,
    calls: HashMap<Call, usize>,
}

#[derive(Clone)]
struct Entry {
    image: TestImage,
    tags: BTreeSet<String>,
    digests: BTreeSet<String>,
}

struct Prepared {
    files: OwnedFd,
    image: Image,
    written: LayerUsage,
}

/// Clones are the same engine.
#[derive(Clone, Default)]
pub struct FakeEngine {
    state: Arc<Mutex<State>>,
}

impl FakeEngine {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes `reference` stand for an image at its registry.
    pub fn publish(&self, reference: &str, image: &TestImage) -> Result<ImageId, Error> {
        let reference = Reference::parse(reference)?;
        let by_digest = reference.with_digest(&image.manifest_digest()).to_string();
        let mut state = self.state();
        for name in [reference.to_string(), by_digest] {
            state.refused.remove(&name);
            state.published.insert(name, image.clone());
        }
        Ok(ImageId(image.id().to_string()))
    }

    /// Makes every pull of `reference` fail, until it is published again.
    pub fn refuse(
        &self,
        reference: &str,
        error: impl Fn() -> Error + Send + 'static,
    ) -> Result<(), Error> {
        let name = Reference::parse(reference)?.to_string();
        self.state().refused.insert(name, Box::new(error));
        Ok(())
    }

    /// Makes the next `times` calls of a kind fail.
    pub fn fail(&self, call: Call, times: usize, error: impl Fn() -> Error + Send + 'static) {
        self.state().faults.insert(call, (times, Box::new(error)));
    }

    /// Makes calls of a kind take at least so long.
    pub fn delay(&self, call: Call, by: Duration) {
        self.state().delays.insert(call, by);
    }

    /// How many calls of a kind there were.
    pub fn calls(&self, call: Call) -> usize {
        self.state().calls.get(&call).copied().unwrap_or(0)
    }

    pub fn set_written(&self, key: &str, usage: LayerUsage) {
        if let Some(prepared) = self.state().prepared.get_mut(key) {
            prepared.written = usage;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn enter(&self, call: Call) -> Result<(), Error> {
        let (delay, fault) = {
            let mut state = self.state();
            *state.calls.entry(call).or_default() += 1;
            let fault = match state.faults.get_mut(&call) {
                Some((left, error)) if *left > 0 => {
                    *left -= 1;
                    Some(error())
                }
                _ => None,
            };
            (state.delays.get(&call).copied(), fault)
        };
        match delay {
            Some(delay) => tokio::time::sleep(delay).await,
            None => tokio::task::yield_now().await,
        }
        fault.map_or(Ok(()), Err)
    }
}

impl State {
    fn find(&self, query: &ImageQuery) -> Result<Option<&Entry>, Error> {
        let named = |name: String| {
            let has = |e: &&Entry| e.tags.contains(&name) || e.digests.contains(&name);
            self.images.values().find(has)
        };
        Ok(match query {
            ImageQuery::Id(id) => self.images.get(id),
            ImageQuery::Reference(reference) => named(reference.to_string()),
            ImageQuery::Either { reference, prefix } => {
                named(reference.to_string()).or_else(|| {
                    let mut hits = self
                        .images
                        .values()
                        .filter(|e| e.image.id().hex().starts_with(prefix));
                    hits.next().filter(|_| hits.next().is_none())
                })
            }
        })
    }

    fn pull(&mut self, reference: &Reference) -> Result<(ImageId, TestImage), Error> {
        let name = reference.to_string();
        if let Some(error) = self.refused.get(&name) {
            return Err(error());
        }
        let image = self
            .published
            .get(&name)
            .ok_or_else(|| Error::NotFound(name.clone()))?
            .clone();
        let (id, digest) = (image.id(), image.manifest_digest());
        if reference.tag.is_some() {
            for entry in self.images.values_mut() {
                entry.tags.remove(&name);
            }
        }
        let new = Entry {
            image: image.clone(),
            tags: BTreeSet::new(),
            digests: BTreeSet::new(),
        };
        let entry = self.images.entry(id.clone()).or_insert(new);
        if reference.tag.is_some() {
            entry.tags.insert(name);
        }
        entry
            .digests
            .insert(reference.with_digest(&digest).to_string());
        Ok((ImageId(id.to_string()), image))
    }
}

impl Entry {
    fn image(&self) -> Result<Image, Error> {
        let corrupt = |why| Error::Corrupt {
            reference: self.image.id().to_string(),
            why,
        };
        let parsed = parse(&self.image.config).map_err(corrupt)?;
        let layers: usize = self.image.layers.iter().map(Vec::len).sum();
        Ok(Image {
            id: ImageId(self.image.id().to_string()),
            repo_tags: self.tags.iter().cloned().collect(),
            repo_digests: self.digests.iter().cloned().collect(),
            size: (layers + self.image.config.len()) as u64,
            user: parsed.config.user.clone(),
            pinned: false,
            config: parsed.config,
            config_json: String::from_utf8_lossy(&self.image.config).into(),
            chain_id: chain_ids(&parsed.diff_ids)
                .last()
                .map(Digest::to_string)
                .unwrap_or_default(),
        })
    }

    /// A file system with the image's files. Holes of upper layers are not made.
    fn files(&self) -> Result<OwnedFd, Error> {
        let io = |what: &str, source| Error::Io {
            what: what.to_owned(),
            source,
        };
        let files = mount::tmpfs(None, 0o755, mount::Flags::NONE)
            .map_err(|e| io("make a file system in memory", e))?;
        let path = PathBuf::from(format!("/proc/self/fd/{}/.", files.as_raw_fd()));
        for layer in &self.image.layers {
            unpack(layer.as_slice(), &path, &Limits::default()).map_err(|f| f.of("fake"))?;
        }
        Ok(files)
    }
}

impl Prepared {
    fn rootfs(&self) -> Result<Rootfs, Error> {
        // Before kernel 6.15 a detached mount cannot be cloned.
        let mount = mount::clone_tree(self.files.as_fd(), "", false)
            .or_else(|_| self.files.try_clone())
            .map_err(|source| Error::Io {
                what: "clone the files".into(),
                source,
            })?;
        Ok(Rootfs {
            mount,
            image: self.image.clone(),
        })
    }
}

#[async_trait]
impl ImageEngine for FakeEngine {
    fn name(&self) -> &str {
        "fake"
    }

    async fn pull(&self, request: PullRequest) -> Result<ImageId, Error> {
        let reference = Reference::parse(&request.reference)?;
        self.enter(Call::Pull).await?;
        let (id, image) = self.state().pull(&reference)?;
        for (digest, _) in image.blobs().skip(1) {
            request
                .progress
                .layer(&digest.to_string(), LayerState::Done);
        }
        Ok(id)
    }

    async fn status(&self, query: &str) -> Result<Option<Image>, Error> {
        let query = ImageQuery::parse(query)?;
        self.enter(Call::Status).await?;
        self.state().find(&query)?.map(Entry::image).transpose()
    }

    async fn list(&self) -> Result<Vec<Image>, Error> {
        self.enter(Call::List).await?;
        self.state().images.values().map(Entry::image).collect()
    }

    async fn remove(&self, query: &str) -> Result<(), Error> {
        let query = ImageQuery::parse(query)?;
        self.enter(Call::Remove).await?;
        let mut state = self.state();
        let id = state.find(&query)?.map(|entry| entry.image.id());
        if let Some(id) = id {
            state.images.remove(&id);
        }
        Ok(())
    }

    async fn usage(&self) -> Result<Usage, Error> {
        self.enter(Call::Usage).await?;
        let state = self.state();
        let content = state
            .images
            .values()
            .map(|entry| entry.image.layers.iter().map(Vec::len));
        let bytes = content.flatten().sum::<usize>() as u64;
        let written = state
            .prepared
            .values()
            .fold(LayerUsage::default(), |sum, one| LayerUsage {
                bytes: sum.bytes + one.written.bytes,
                inodes: sum.inodes + one.written.inodes,
            });
        let images = LayerUsage {
            bytes,
            inodes: state.images.len() as u64,
        };
        let on = |used| {
            vec![FsUsage {
                path: std::env::temp_dir(),
                used,
            }]
        };
        Ok(Usage {
            images: on(images),
            containers: on(written),
        })
    }

    async fn prepare(&self, image: &ImageId, key: &str) -> Result<Rootfs, Error> {
        check_key(key)?;
        let id = Digest::parse(&image.0)?;
        self.enter(Call::Prepare).await?;
        let mut state = self.state();
        if let Some(prepared) = state.prepared.get(key) {
            if prepared.image.id != *image {
                let what = format!("root filesystem key {key:?}");
                return Err(Error::Invalid {
                    what,
                    why: "is in use for another image".into(),
                });
            }
            return prepared.rootfs();
        }
        let entry = state
            .images
            .get(&id)
            .ok_or_else(|| Error::NotFound(image.to_string()))?;
        let written = LayerUsage {
            bytes: 4096,
            inodes: 1,
        };
        let prepared = Prepared {
            files: entry.files()?,
            image: entry.image()?,
            written,
        };
        let rootfs = prepared.rootfs()?;
        state.prepared.insert(key.to_owned(), prepared);
        Ok(rootfs)
    }

    async fn release(&self, key: &str) -> Result<(), Error> {
        check_key(key)?;
        self.enter(Call::Release).await?;
        self.state().prepared.remove(key);
        Ok(())
    }

    async fn writable_usage(&self, key: &str) -> Result<LayerUsage, Error> {
        check_key(key)?;
        self.enter(Call::WritableUsage).await?;
        let state = self.state();
        state
            .prepared
            .get(key)
            .map(|p| p.written)
            .ok_or_else(|| Error::NotFound(key.to_owned()))
    }

    async fn prepared(&self) -> Result<Vec<String>, Error> {
        self.enter(Call::Prepared).await?;
        Ok(self.state().prepared.keys().cloned().collect())
    }
}

impl fmt::Debug for FakeEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FakeEngine")
    }
}
