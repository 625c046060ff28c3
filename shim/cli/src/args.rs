//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};

use crate::time;

/// Makes and shows pods on this machine, over the socket of a container runtime (CRI).
#[derive(Debug, Parser)]
#[command(name = "carpel", disable_version_flag = true)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Global {
    /// Socket of the runtime
    #[arg(
        short,
        long,
        global = true,
        env = "CARPEL_SOCKET",
        hide_env_values = true
    )]
    #[arg(default_value = "/run/carpel/carpel.sock", value_name = "PATH")]
    pub(crate) socket: PathBuf,
    /// Socket of carpeld's own calls [default: admin.sock beside the runtime's socket]
    #[arg(
        long,
        global = true,
        env = "CARPEL_ADMIN_SOCKET",
        hide_env_values = true
    )]
    #[arg(value_name = "PATH")]
    pub(crate) admin_socket: Option<PathBuf>,
    /// Where logs and emptyDir volumes of pods made here are kept
    #[arg(long, global = true, env = "CARPEL_STATE_DIR", hide_env_values = true)]
    #[arg(default_value = "/var/lib/carpel-cli", value_name = "DIR")]
    pub(crate) state_dir: PathBuf,
    /// How long to wait for an ordinary answer; 0 is for ever
    #[arg(long, global = true, default_value = "2m", value_name = "TIME")]
    #[arg(value_parser = time::parse_duration)]
    pub(crate) timeout: Duration,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make the pods of a manifest and wait until they run
    Create(Create),
    /// List pods, containers or images
    Get(Get),
    /// Show everything about a pod, a container or an image
    Describe(Describe),
    /// Print what a container wrote
    Logs(Logs),
    /// Run a command in a container and pass its output and exit code on
    Exec(Exec),
    /// Stop pods; they stay listed
    Stop(Stop),
    /// Stop and remove pods
    Delete(Delete),
    /// Fetch an image from a registry
    Pull(Pull),
    /// Read images from an archive (OCI layout or docker save)
    Load(Load),
    /// Write images to an archive
    Save(Save),
    /// List images
    Images(Images),
    /// Remove images
    Rmi(Rmi),
    /// Print the version of carpel and of the runtime
    Version,
    /// Print the configuration that carpeld runs with
    Config,
    /// Say whether the runtime is ready
    Health(Health),
    /// Show what pods and containers use
    Stats(Stats),
    /// Print what happens to pods and containers, until Ctrl-C
    Events(Events),
    /// Look whether this node has what Carpel needs, and what is left over on it. Ends
    /// with 0 if all is well, with 1 after warnings, with 2 after failures
    Doctor(Doctor),
    /// Print a completion script for a shell
    Completion(Completion),
    /// Write the manual pages to a directory
    Man {
        /// Made if needed
        #[arg(value_name = "DIR")]
        dir: PathBuf,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Create {
    /// Manifest, YAML or JSON; - is stdin
    #[arg(short, long = "filename", required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Leave what was made when something fails
    #[arg(long)]
    pub(crate) keep: bool,
    /// How long an init container may take
    #[arg(long, default_value = "1h", value_name = "TIME", value_parser = time::parse_duration)]
    pub(crate) init_timeout: Duration,
    /// Runtime handler of the pods
    #[arg(long, default_value = "", value_name = "NAME")]
    pub(crate) runtime_handler: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    #[value(alias = "pod", alias = "po")]
    Pods,
    #[value(alias = "container", alias = "c")]
    Containers,
    #[value(alias = "image", alias = "i")]
    Images,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Listing {
    #[default]
    Table,
    Json,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    #[default]
    #[value(skip)]
    Table,
    Wide,
    Json,
    Yaml,
    Name,
}

/// Which pods are meant.
#[derive(Clone, Debug, Default, ClapArgs)]
pub(crate) struct Scope {
    /// Namespace of the pods
    #[arg(short, long, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
    /// Pods of all namespaces
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    pub(crate) all_namespaces: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Get {
    pub(crate) kind: Kind,
    /// Name, namespace/name or the beginning of an id; for containers also pod/container
    pub(crate) names: Vec<String>,
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) output: Option<Format>,
    #[command(flatten)]
    pub(crate) scope: Scope,
    /// Labels, as app=web,tier!=db
    #[arg(short = 'l', long, value_name = "LABELS")]
    pub(crate) selector: Option<String>,
    /// Also containers that have ended, and earlier sandboxes of a pod
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Describe {
    pub(crate) kind: Kind,
    #[arg(required = true)]
    pub(crate) names: Vec<String>,
    #[command(flatten)]
    pub(crate) scope: Scope,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Logs {
    pub(crate) pod: String,
    #[command(flatten)]
    pub(crate) scope: Scope,
    #[arg(short, long)]
    pub(crate) container: Option<String>,
    /// Go on printing until the container ends
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only the last lines
    #[arg(long, value_name = "LINES")]
    pub(crate) tail: Option<usize>,
    /// Only lines newer than this, as 10s or 5m
    #[arg(long, value_name = "TIME", value_parser = time::parse_duration)]
    pub(crate) since: Option<Duration>,
    /// Print when each line was written
    #[arg(long)]
    pub(crate) timestamps: bool,
    /// The log of the container before this one
    #[arg(short, long)]
    pub(crate) previous: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Exec {
    pub(crate) pod: String,
    #[command(flatten)]
    pub(crate) scope: Scope,
    #[arg(short, long)]
    pub(crate) container: Option<String>,
    /// End the command after this time
    #[arg(long, value_name = "TIME", value_parser = time::parse_duration)]
    pub(crate) limit: Option<Duration>,
    #[arg(last = true, required = true)]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Stop {
    #[arg(required = true)]
    pub(crate) pods: Vec<String>,
    #[command(flatten)]
    pub(crate) scope: Scope,
    /// Seconds between the stop signal and the kill [default: the pod's own, or 30]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) grace: Option<u32>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Delete {
    #[arg(required_unless_present_any = ["files", "all"])]
    pub(crate) pods: Vec<String>,
    #[command(flatten)]
    pub(crate) scope: Scope,
    /// The pods of a manifest; - is stdin
    #[arg(short, long = "filename", value_name = "FILE", conflicts_with = "pods")]
    pub(crate) files: Vec<PathBuf>,
    /// Every pod of the namespace, or of all with -A
    #[arg(long, conflicts_with_all = ["pods", "files"])]
    pub(crate) all: bool,
    /// Seconds between the stop signal and the kill [default: the pod's own, or 30]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) grace: Option<u32>,
    /// A pod that is not there is no error
    #[arg(long)]
    pub(crate) ignore_not_found: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Pull {
    pub(crate) image: String,
    /// user:password
    #[arg(long, value_name = "USER:PASSWORD", conflicts_with = "creds_file")]
    pub(crate) creds: Option<String>,
    /// A file that holds user:password; - is stdin
    #[arg(long, value_name = "FILE")]
    pub(crate) creds_file: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Load {
    /// The archive; - is stdin
    #[arg(short, long, value_name = "FILE")]
    pub(crate) input: PathBuf,
    /// Name for an archive that brings none
    #[arg(long, default_value = "", value_name = "NAME")]
    pub(crate) name: String,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Save {
    #[arg(required = true)]
    pub(crate) images: Vec<String>,
    /// The archive; - is stdout
    #[arg(short = 'o', long, value_name = "FILE")]
    pub(crate) output: PathBuf,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Images {
    pub(crate) names: Vec<String>,
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) output: Option<Format>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Rmi {
    /// Name, or the beginning of an id
    #[arg(required = true)]
    pub(crate) images: Vec<String>,
    /// An image that is not there is no error
    #[arg(long)]
    pub(crate) ignore_not_found: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Health {
    /// Try again for this long until the runtime is ready
    #[arg(long, value_name = "TIME", value_parser = time::parse_duration)]
    pub(crate) wait: Option<Duration>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Stats {
    /// Pods, by name or the beginning of an id [default: those of the namespace]
    pub(crate) pods: Vec<String>,
    #[command(flatten)]
    pub(crate) scope: Scope,
    /// Leave containers out
    #[arg(long)]
    pub(crate) pods_only: bool,
    /// Print again and again, until Ctrl-C
    #[arg(short, long, value_name = "TIME", num_args = 0..=1, default_missing_value = "2s")]
    #[arg(value_parser = time::parse_duration)]
    pub(crate) watch: Option<Duration>,
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub(crate) output: Listing,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Events {
    /// Only of these pods, by name or the beginning of an id
    pub(crate) pods: Vec<String>,
    /// Only of this namespace
    #[arg(short, long, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
    /// Only of this container, by name or the beginning of an id
    #[arg(short, long, value_name = "NAME")]
    pub(crate) container: Option<String>,
    /// Only of this kind; may be given more than once
    #[arg(short = 't', long = "type", value_name = "KIND")]
    pub(crate) kinds: Vec<EventKind>,
    /// End after so many events
    #[arg(long, value_name = "NUMBER")]
    pub(crate) count: Option<u64>,
    /// End after this time
    #[arg(long = "for", value_name = "TIME", value_parser = time::parse_duration)]
    pub(crate) duration: Option<Duration>,
    /// As json, one object a line
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub(crate) output: Listing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum EventKind {
    Created,
    Started,
    Stopped,
    Deleted,
}

impl EventKind {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Started => "started",
            Self::Stopped => "stopped",
            Self::Deleted => "deleted",
        }
    }
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Doctor {
    /// Configuration of carpeld
    #[arg(long, default_value = "/etc/carpel/config.toml", value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// The daemon's binary [default: beside carpel, else in PATH]
    #[arg(long, value_name = "FILE")]
    pub(crate) carpeld: Option<PathBuf>,
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub(crate) output: Listing,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Completion {
    pub(crate) shell: clap_complete::Shell,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definitions_fit_together() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_command_after_two_dashes_keeps_its_options() {
        let args = Args::parse_from(["carpel", "exec", "web", "-c", "a", "--", "ls", "-l"]);
        let Command::Exec(exec) = args.command else {
            panic!("exec")
        };
        assert_eq!(
            (exec.pod.as_str(), exec.command.as_slice()),
            ("web", &["ls", "-l"].map(String::from)[..])
        );
    }
}
