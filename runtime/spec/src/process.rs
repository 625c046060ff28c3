//! Command, environment and directory of a container's processes.

use std::collections::HashMap;
use std::path::PathBuf;

use oci_spec::runtime::{Process, Spec, User as OciUser};

use crate::error::{Error, Result};
use crate::intent::{ContainerConfig, ImageConfig};
use crate::plan::Input;
use crate::users::User;

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The first process, but for its rights.
pub(crate) fn build(input: &Input<'_>) -> Result<Process> {
    let config = input.container;
    let adjustment = i32::try_from(config.resources.oom_score_adj).map_err(|_| {
        let why = "is a number from -1000 to 1000";
        Error::invalid(
            "linux.resources.oom_score_adj",
            config.resources.oom_score_adj,
            why,
        )
    })?;
    let mut process = Process::default();
    process
        .set_terminal(Some(config.tty))
        .set_user(oci_user(input.user))
        .set_args(Some(command(config, input.image)?))
        .set_env(Some(environment(input)?))
        .set_cwd(directory(config, input.image))
        .set_rlimits(None)
        .set_oom_score_adj(Some(adjustment));
    Ok(process)
}

/// A process that joins the container: all but its command is as the container's own.
pub fn exec_process(spec: &Spec, cmd: &[String], terminal: bool) -> Result<Process> {
    if cmd.first().is_none_or(String::is_empty) {
        return Err(Error::invalid("cmd", cmd.concat(), "names no program"));
    }
    if let Some(part) = cmd.iter().find(|part| part.contains('\0')) {
        return Err(Error::invalid("cmd", part, "has a NUL character"));
    }
    let mut process = spec.process().clone().unwrap_or_default();
    let mut env = process.env().clone().unwrap_or_default();
    if terminal && !env.iter().any(|entry| entry.starts_with("TERM=")) {
        env.push("TERM=xterm".to_owned());
    }
    process
        .set_terminal(Some(terminal))
        .set_console_size(None)
        .set_args(Some(cmd.to_vec()))
        .set_env(Some(env));
    Ok(process)
}

fn oci_user(user: &User) -> OciUser {
    let mut oci = OciUser::default();
    oci.set_uid(user.uid)
        .set_gid(user.gid)
        .set_additional_gids(Some(user.groups.clone()));
    oci
}

/// A command of the client stands alone; without one the image's entrypoint runs,
/// with the client's arguments or else its own.
fn command(config: &ContainerConfig, image: &ImageConfig) -> Result<Vec<String>> {
    let (program, args) = match (config.command.is_empty(), config.args.is_empty()) {
        (false, _) => (&config.command, &config.args),
        (true, false) => (&image.entrypoint, &config.args),
        (true, true) => (&image.entrypoint, &image.cmd),
    };
    let command: Vec<String> = program.iter().chain(args).cloned().collect();
    if command.first().is_none_or(String::is_empty) {
        let why = "neither the container nor its image says what to run";
        return Err(Error::invalid("command", command.concat(), why));
    }
    if let Some(part) = command.iter().find(|part| part.contains('\0')) {
        return Err(Error::invalid("command", part, "has a NUL character"));
    }
    Ok(command)
}

fn directory(config: &ContainerConfig, image: &ImageConfig) -> PathBuf {
    let path = if config.working_dir.is_empty() {
        &image.working_dir
    } else {
        &config.working_dir
    };
    // An image's may be relative; there is nothing but the root it could be relative to.
    PathBuf::from("/").join(path)
}

/// Later ones win: ours, the image's, the client's, those of its devices.
fn environment(input: &Input<'_>) -> Result<Vec<String>> {
    let mut env = Environment::default();
    env.set("PATH", PATH);
    if !input.hostname.is_empty() {
        env.set("HOSTNAME", input.hostname);
    }
    if input.container.tty {
        env.set("TERM", "xterm");
    }
    let home = if input.user.home.is_empty() {
        "/"
    } else {
        &input.user.home
    };
    env.set("HOME", home);
    for entry in &input.image.env {
        if let Some((name, value)) = entry.split_once('=').filter(|(name, _)| !name.is_empty()) {
            env.set(name, value);
        }
    }
    for (name, value) in &input.container.envs {
        let field = || format!("envs[{name}]");
        // The OCI configuration is JSON text; to alter the bytes silently would be worse.
        let value = std::str::from_utf8(value)
            .map_err(|_| Error::invalid(field(), String::from_utf8_lossy(value), "is not UTF-8"))?;
        env.set(name, value);
    }
    for (name, value) in &input.cdi.env {
        env.set(name, value);
    }
    Ok(env
        .list
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect())
}

/// In the order of first mention. An image can have hundreds of thousands.
#[derive(Default)]
struct Environment {
    list: Vec<(String, String)>,
    places: HashMap<String, usize>,
}

impl Environment {
    fn set(&mut self, name: &str, value: &str) {
        match self.places.get(name) {
            Some(place) => value.clone_into(&mut self.list[*place].1),
            None => {
                self.places.insert(name.to_owned(), self.list.len());
                self.list.push((name.to_owned(), value.to_owned()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::container_spec;
    use crate::plan::fixture::Fixture;

    fn own(parts: &[&str]) -> Vec<String> {
        parts.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn command_and_arguments_replace_the_images() {
        let image = ImageConfig {
            entrypoint: own(&["e"]),
            cmd: own(&["c"]),
            ..ImageConfig::default()
        };
        let run = |command_: &[&str], args: &[&str]| {
            let config = ContainerConfig {
                command: own(command_),
                args: own(args),
                ..ContainerConfig::default()
            };
            command(&config, &image).unwrap()
        };
        assert_eq!(run(&[], &[]), ["e", "c"]);
        assert_eq!(run(&["x"], &[]), ["x"]);
        assert_eq!(run(&[], &["y"]), ["e", "y"]);
        assert_eq!(run(&["x"], &["y"]), ["x", "y"]);
    }

    #[test]
    fn nothing_to_run_is_an_error() {
        let config = ContainerConfig::default();
        assert!(command(&config, &ImageConfig::default()).is_err());
        let config = ContainerConfig {
            command: own(&[""]),
            ..config
        };
        assert!(command(&config, &ImageConfig::default()).is_err());
    }

    #[test]
    fn environment_of_the_client_wins_over_the_images() {
        let mut fixture = Fixture::default();
        fixture.image.env = own(&["A=image", "B=image", "PATH=/p", "bare", "=x"]);
        fixture.container.envs = vec![
            ("B".to_owned(), b"a=b".to_vec()),
            ("C".to_owned(), b"".to_vec()),
        ];
        assert_eq!(
            environment(&fixture.input()).unwrap(),
            [
                "PATH=/p",
                "HOSTNAME=web-0",
                "HOME=/",
                "A=image",
                "B=a=b",
                "C="
            ]
        );
        fixture.container.tty = true;
        assert!(
            environment(&fixture.input())
                .unwrap()
                .contains(&"TERM=xterm".to_owned())
        );
        fixture.container.envs = vec![("D".to_owned(), vec![0xff])];
        assert!(
            environment(&fixture.input())
                .unwrap_err()
                .to_string()
                .starts_with("envs[D]")
        );
    }

    #[test]
    fn working_directory_is_absolute() {
        let image = ImageConfig {
            working_dir: "srv".to_owned(),
            ..ImageConfig::default()
        };
        let mut config = ContainerConfig::default();
        assert_eq!(
            directory(&config, &ImageConfig::default()),
            PathBuf::from("/")
        );
        assert_eq!(directory(&config, &image), PathBuf::from("/srv"));
        config.working_dir = "/w".to_owned();
        assert_eq!(directory(&config, &image), PathBuf::from("/w"));
    }

    #[test]
    fn exec_is_as_the_container_but_for_its_command() {
        let fixture = Fixture::web();
        let spec = container_spec(&fixture.input()).unwrap().spec;
        let own_process = spec.process().clone().unwrap();
        let exec = exec_process(&spec, &own(&["id", "-G"]), true).unwrap();
        assert_eq!(exec.args().as_ref().unwrap()[..], ["id", "-G"]);
        assert_eq!(exec.user(), own_process.user());
        assert_eq!(exec.capabilities(), own_process.capabilities());
        assert_eq!(exec.no_new_privileges(), Some(true));
        assert_eq!(exec.terminal(), Some(true));
        assert!(
            exec.env()
                .as_ref()
                .unwrap()
                .contains(&"TERM=xterm".to_owned())
        );
        assert!(exec_process(&spec, &[], false).is_err());
        assert!(exec_process(&spec, &own(&["a\0b"]), false).is_err());
    }
}
