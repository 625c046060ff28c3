//! A scratch directory with a fake runtime in it, and a way to run the binary there.

use std::fs;
use std::io::Write;
use std::process::{Child, Command, Output, Stdio};

use carpel_proto::admin::admin_server::AdminServer;
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::runtime::Runtime;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;

use crate::admin::FakeAdmin;
use crate::fake::{Fake, ImageEnd, RuntimeEnd};

pub(crate) struct Harness {
    pub(crate) fake: Fake,
    pub(crate) admin: FakeAdmin,
    scratch: TempDir,
    _runtime: Runtime,
}

impl Harness {
    /// A runtime with the CRI alone.
    pub(crate) fn new() -> Self {
        Self::start(false)
    }

    /// One that has carpeld's own calls, too.
    pub(crate) fn with_admin() -> Self {
        Self::start(true)
    }

    fn start(with_admin: bool) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (fake, admin) = (Fake::default(), FakeAdmin::default());
        let guard = runtime.enter();
        let listen = |name: &str| {
            UnixListenerStream::new(UnixListener::bind(scratch.path().join(name)).unwrap())
        };
        let cri = Server::builder()
            .add_service(RuntimeEnd(fake.clone()))
            .add_service(ImageEnd(fake.clone()))
            .serve_with_incoming(listen("cri.sock"));
        runtime.spawn(cri);
        if with_admin {
            let server = Server::builder()
                .add_service(AdminServer::new(admin.clone()))
                .serve_with_incoming(listen("admin.sock"));
            runtime.spawn(server);
        }
        drop(guard);
        Self {
            fake,
            admin,
            scratch,
            _runtime: runtime,
        }
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.scratch.path().join(name).display().to_string()
    }

    pub(crate) fn write(&self, name: &str, data: &[u8]) -> String {
        fs::write(self.scratch.path().join(name), data).unwrap();
        self.path(name)
    }

    /// Names in the scratch directory.
    pub(crate) fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.scratch.path()).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    /// Directories of pods that the client keeps.
    pub(crate) fn pod_dirs(&self) -> usize {
        fs::read_dir(self.scratch.path().join("state/pods")).map_or(0, Iterator::count)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_carpel"));
        command
            .args(args)
            .env_remove("CARPEL_ADMIN_SOCKET")
            .env("CARPEL_SOCKET", self.path("cri.sock"))
            .env("CARPEL_STATE_DIR", self.path("state"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub(crate) fn carpel(&self, args: &[&str]) -> Done {
        Done(self.command(args).output().unwrap())
    }

    pub(crate) fn carpel_with(&self, args: &[&str], input: &[u8]) -> Done {
        let mut child = self.command(args).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        Done(child.wait_with_output().unwrap())
    }

    pub(crate) fn start_carpel(&self, args: &[&str]) -> Child {
        self.command(args).spawn().unwrap()
    }
}

/// A command that has ended.
pub(crate) struct Done(pub(crate) Output);

impl Done {
    /// What it printed, having ended well.
    pub(crate) fn succeed(self) -> String {
        assert!(
            self.0.status.success(),
            "{:?}: {}",
            self.0.status,
            self.stderr()
        );
        String::from_utf8(self.0.stdout).unwrap()
    }

    /// What it complained about, having ended with `code`.
    pub(crate) fn fail(self, code: i32) -> String {
        assert_eq!(self.0.status.code(), Some(code), "{}", self.stderr());
        self.stderr()
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8(self.0.stderr.clone()).unwrap()
    }
}
