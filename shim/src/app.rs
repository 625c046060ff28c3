//! Puts the daemon together, serves, and takes it apart again.

use std::fs::File;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use arc_swap::ArcSwap;
use carpel_failpoint::{From, Plan};
use carpel_images::Store;
use carpel_network::NoneDriver;
use carpel_network::driver::NetworkDriver;
use carpel_proto::admin::admin_server::AdminServer;
use carpel_proto::cri::image_service_server::ImageServiceServer;
use carpel_proto::cri::runtime_service_server::RuntimeServiceServer;
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use tokio::net::UnixListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_stream::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use crate::admin::AdminEdge;
use crate::args;
use crate::authority::LenientStream;
use crate::backends;
use crate::cdi::Cdi;
use crate::config::{Config, Driver};
use crate::cri::{self, ImageEdge, RuntimeEdge};
use crate::deadline::DeadlineLayer;
use crate::handlers::Handlers;
use crate::holder::HolderImage;
use crate::listen;
use crate::logging::LogLevel;
use crate::metrics::{self, Metrics, NodeView, PageServer, RpcLayer, leftovers_view};
use crate::notify;
use crate::pod::{Decode, Parts, Runtime, now_ns};
use crate::reload::Reloader;
use crate::seccomp::Compiler;
use crate::state::StateStore;

/// For the lock of the run directory.
const LOCK: Duration = Duration::from_secs(2);
/// For operations that run when the daemon is told to end.
const DRAIN: Duration = Duration::from_secs(20);

/// A daemon, put together and not serving yet.
struct App {
    config: Arc<Config>,
    store: Arc<Store>,
    runtime: Arc<Runtime>,
    metrics: Arc<Metrics>,
    reloader: Arc<Reloader>,
    /// Held while this daemon lives: two would undo each other's work.
    _lock: File,
}

/// Serves until SIGTERM or SIGINT; SIGHUP reads `path` again.
pub(crate) async fn serve(
    config: Config,
    path: Option<PathBuf>,
    log: LogLevel,
) -> anyhow::Result<()> {
    // From the first moment: unheard, it would end the daemon.
    let hangups = signal(SignalKind::hangup())?;
    let plan = std::env::var(carpel_failpoint::VARIABLE)
        .ok()
        .map(|text| Plan::parse(&text))
        .transpose()?;
    let count_from = |now| {
        if let Some(plan) = plan {
            plan.begin(now);
        }
    };
    count_from(From::Start);
    let app = App::build(config, path, log).await?;
    let begin = Instant::now();
    app.runtime
        .recover(Decode {
            pod: cri::decode::pod,
            container: cri::decode::container,
        })
        .await?;
    app.metrics.recovered(begin.elapsed());
    count_from(From::Serving);
    app.run(hangups).await
}

/// Removes what outlives the daemon on purpose. Refused while there are pods.
pub(crate) async fn cleanup(config: Config) -> anyhow::Result<()> {
    let run = make_dirs(&config)?;
    let _lock = lock(&run)?;
    let state = StateStore::open(&config.paths.root.join("state"))?;
    let pods = state.load()?.len();
    anyhow::ensure!(pods == 0, "there are {pods} pods; remove them first");
    if config.network.driver == Driver::Bridge {
        backends::bridge(&config)?.destroy().await?;
    }
    let cgroups = carpel_cgroup::Hierarchies::detect()?;
    let places = backends::places(&config)?;
    // A slice is systemd's, which removes it when it is empty.
    if !places.is_systemd() {
        cgroups.open(places.root())?.remove()?;
    }
    Ok(())
}

impl App {
    async fn build(config: Config, path: Option<PathBuf>, log: LogLevel) -> anyhow::Result<Self> {
        let run = make_dirs(&config)?;
        let lock = lock(&run)?;
        let store = Arc::new(backends::store(&config).await?);
        let network: Arc<dyn NetworkDriver> = match config.network.driver {
            Driver::Bridge => Arc::new(backends::bridge(&config)?),
            Driver::None => Arc::new(NoneDriver),
        };
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .context("read /proc/sys/kernel/random/boot_id")?;
        let metrics = Arc::new(Metrics::new());
        let runtime = Runtime::new(Parts {
            state: StateStore::open(&config.paths.root.join("state"))?,
            run,
            volumes: config.paths.root.join("volumes"),
            holder: HolderImage::load(&config.holder.binary)?,
            handlers: Handlers::new(&config),
            images: Arc::clone(&store) as _,
            network,
            cgroups: Arc::new(carpel_cgroup::Hierarchies::detect()?),
            places: backends::places(&config)?,
            pids_limit: config.cgroup.pids_limit.into(),
            seccomp: Compiler::new(),
            metrics: Arc::clone(&metrics),
            event_backlog: config.grpc.event_backlog,
            cdi: Arc::new(Cdi::new(config.cdi.directories.clone())),
            boot_id: boot_id.trim().to_owned(),
        });
        let config = Arc::new(config);
        Ok(Self {
            reloader: Arc::new(Reloader {
                path,
                current: Arc::new(ArcSwap::new(Arc::clone(&config))),
                log,
                store: Arc::clone(&store),
                runtime: Arc::clone(&runtime),
            }),
            config,
            store,
            runtime,
            metrics,
            _lock: lock,
        })
    }

    fn runtime_edge(&self) -> RuntimeEdge {
        RuntimeEdge(
            Arc::clone(&self.runtime),
            Arc::clone(&self.reloader.current),
        )
    }

    fn image_edge(&self) -> ImageEdge {
        ImageEdge(Arc::clone(&self.store) as _, Arc::clone(&self.metrics))
    }

    fn admin_edge(&self, node: &Arc<NodeView>) -> AdminEdge {
        AdminEdge {
            config: Arc::clone(&self.reloader.current),
            store: Arc::clone(&self.store),
            runtime: Arc::clone(&self.runtime),
            metrics: Arc::clone(&self.metrics),
            node: Arc::clone(node),
            started_at_ns: now_ns(),
        }
    }

    async fn run(self, hangups: Signal) -> anyhow::Result<()> {
        let stop = CancellationToken::new();
        let cri = listen::bind(&self.config.grpc.socket)?;
        let admin = listen::bind(&self.config.admin.socket)?;
        let runtime_edge = RuntimeServiceServer::new(self.runtime_edge())
            .max_decoding_message_size(cri::MAX_MESSAGE)
            .max_encoding_message_size(cri::MAX_MESSAGE);
        let image_edge = ImageServiceServer::new(self.image_edge())
            .max_decoding_message_size(cri::MAX_MESSAGE)
            .max_encoding_message_size(cri::MAX_MESSAGE);
        let page = PageServer {
            metrics: Arc::clone(&self.metrics),
            node: leftovers_view(Arc::clone(&self.runtime), args::places(&self.config)?),
        };
        let admin_edge = AdminServer::new(self.admin_edge(&page.node));
        let serve_cri = Server::builder()
            .layer(RpcLayer(Arc::clone(&self.metrics)))
            .layer(DeadlineLayer)
            .add_service(runtime_edge)
            .add_service(image_edge)
            .serve_with_incoming_shutdown(connections(cri), stop.clone().cancelled_owned());
        let serve_admin = Server::builder()
            .add_service(admin_edge)
            .serve_with_incoming_shutdown(connections(admin), stop.clone().cancelled_owned());
        tracing::info!(socket = %self.config.grpc.socket.display(), "serving");
        let (mut term, mut int) = (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
        );
        if let Some(listener) = metrics::bind(&self.config.metrics.place()?).await? {
            tokio::spawn(page.serve(listener, stop.clone()));
        }
        tokio::spawn(notify::watchdog(stop.clone()));
        tokio::spawn(reload_on(hangups, Arc::clone(&self.reloader), stop.clone()));
        notify::ready();
        let serving = async { tokio::try_join!(serve_cri, serve_admin) };
        tokio::pin!(serving);
        tokio::select! {
            ended = &mut serving => {
                ended.context("serve")?;
                anyhow::bail!("the sockets were closed");
            }
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        tracing::info!("ending: no new requests, waiting for those that run");
        notify::stopping();
        stop.cancel();
        // Readers of events stay until the feed ends, which it does after the last event.
        let drained = tokio::time::timeout(DRAIN, async {
            let (served, ()) = tokio::join!(serving, self.runtime.drain());
            drop(served);
            self.runtime.drain().await;
        });
        if drained.await.is_err() {
            tracing::warn!(after = ?DRAIN, "some operations still run; the next start takes them up");
        }
        for socket in [&self.config.grpc.socket, &self.config.admin.socket] {
            std::fs::remove_file(socket).with_context(|| format!("remove {}", socket.display()))?;
        }
        Ok(())
    }
}

async fn reload_on(mut hangups: Signal, reloader: Arc<Reloader>, stop: CancellationToken) {
    while stop
        .run_until_cancelled(hangups.recv())
        .await
        .flatten()
        .is_some()
    {
        notify::reloading();
        let reloader = Arc::clone(&reloader);
        if let Err(error) = tokio::task::spawn_blocking(move || reloader.reload()).await {
            tracing::error!(%error, "the reload crashed");
        }
        notify::ready();
    }
}

/// Connections of a socket, whatever their clients call it.
fn connections(listener: UnixListener) -> impl Stream<Item = io::Result<LenientStream>> {
    UnixListenerStream::new(listener).map(|accepted| accepted.map(LenientStream::new))
}

fn make_dirs(config: &Config) -> anyhow::Result<std::path::PathBuf> {
    for dir in [
        &config.paths.root,
        &config.paths.run,
        &config.paths.run.join("pods"),
    ] {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(dir)
            .with_context(|| format!("create {}", dir.display()))?;
    }
    // Not open to others: a program with set-id bits may lie in a volume.
    let volumes = config.paths.root.join("volumes");
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&volumes)
        .with_context(|| format!("create {}", volumes.display()))?;
    Ok(config.paths.run.clone())
}

fn lock(run: &Path) -> anyhow::Result<File> {
    let path = run.join("carpeld.lock");
    let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
    // A child of a daemon that was killed may hold it until its program begins.
    let end = std::time::Instant::now() + LOCK;
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::AGAIN) if std::time::Instant::now() < end => {
                std::thread::sleep(LOCK / 50);
            }
            locked => {
                locked.with_context(|| format!("another carpeld uses {}", run.display()))?;
                return Ok(file);
            }
        }
    }
}
