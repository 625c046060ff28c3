//! One file a command.

mod completion;
mod config;
mod create;
mod delete;
mod describe;
mod doctor;
mod events;
mod exec;
mod get;
mod health;
mod images;
mod load;
mod logs;
mod pull;
mod rmi;
mod save;
mod start;
mod stats;
mod stop;
mod undo;
mod version;

use crate::args::{Args, Command};
use crate::client::{self, Session};
use crate::error::Result;

/// Does what the command line says.
pub(crate) async fn run(args: Args) -> Result<()> {
    let global = args.global;
    let admin = |what| client::admin(&global, what);
    match args.command {
        Command::Load(load) => return load::run(admin("load").await?, load).await,
        Command::Save(save) => return save::run(admin("save").await?, save).await,
        Command::Config => return config::run(admin("config").await?).await,
        Command::Health(health) => return health::run(&global, health).await,
        // Mistakes in the manifest are told even when no runtime is there.
        Command::Create(create) => return Box::pin(create::run(&global, create)).await,
        Command::Version => return version::run(&global).await,
        Command::Doctor(doctor) => return doctor::run(&global, &doctor).await,
        Command::Completion(args) => return completion::completion(&args),
        Command::Man { dir } => return completion::man(&dir),
        _ => {}
    }
    let session = Session::open(&global).await?;
    match args.command {
        Command::Get(get) => get::run(&session, &get).await,
        Command::Describe(describe) => describe::run(&session, &describe).await,
        Command::Logs(logs) => logs::run(&session, &logs).await,
        Command::Exec(exec) => exec::run(&session, exec).await,
        Command::Stop(stop) => stop::run(&session, &stop).await,
        Command::Delete(delete) => delete::run(&session, &global.state_dir, &delete).await,
        Command::Pull(pull) => pull::run(&session, &pull).await,
        Command::Images(images) => images::run(&session, &images.names, images.output).await,
        Command::Rmi(rmi) => rmi::run(&session, &rmi).await,
        Command::Stats(stats) => stats::run(&session, &stats).await,
        Command::Events(events) => events::run(&session, &events).await,
        Command::Load(_)
        | Command::Save(_)
        | Command::Config
        | Command::Health(_)
        | Command::Create(_)
        | Command::Version
        | Command::Doctor(_)
        | Command::Completion(_)
        | Command::Man { .. } => Ok(()),
    }
}
