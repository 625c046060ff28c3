//! The configuration, as carpeld itself reads it.

use std::path::{Path, PathBuf};
use std::process::Command;

use toml::{Table, Value};

use crate::args::Doctor;
use crate::doctor::facts::Config;

/// Where carpeld is: as named, beside us, or in PATH.
pub(super) fn carpeld(args: &Doctor) -> Option<PathBuf> {
    if args.carpeld.is_some() {
        return args.carpeld.clone();
    }
    let beside = std::env::current_exe().ok()?.with_file_name("carpeld");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).map(|dir| dir.join("carpeld"));
    std::iter::once(beside)
        .chain(places)
        .find(|place| place.is_file())
}

/// What a subcommand of carpeld that needs no daemon prints.
pub(super) fn run(carpeld: &Path, args: &Doctor, command: &str) -> Result<String, String> {
    let mut call = Command::new(carpeld);
    call.arg(command);
    if args.config.exists() {
        call.arg("--config").arg(&args.config);
    }
    let output = call
        .output()
        .map_err(|error| format!("run {}: {error}", carpeld.display()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let told = String::from_utf8_lossy(&output.stderr);
    let told = told.trim().trim_start_matches("carpeld: ");
    Err(told.lines().map(str::trim).collect::<Vec<_>>().join("; "))
}

/// The file decides whether it is valid; what is in force, where to look.
pub(super) fn read(
    args: &Doctor,
    carpeld: Option<&Path>,
    in_force: Option<String>,
) -> (Config, Table) {
    let mut config = Config {
        from: match args.config.exists() {
            true => args.config.display().to_string(),
            false => "the defaults".to_owned(),
        },
        ..Config::default()
    };
    let mut text = None;
    match carpeld.map(|carpeld| run(carpeld, args, "dump-config")) {
        Some(Ok(dumped)) => text = Some(dumped),
        Some(Err(mistake)) => config.mistake = Some(mistake),
        None if in_force.is_none() => config.unknown = Some("carpeld is not found".to_owned()),
        None => config.from = "what carpeld runs with".to_owned(),
    }
    let table = in_force.or(text).and_then(|text| text.parse().ok());
    let table: Table = table.unwrap_or_default();
    fill(&mut config, &table);
    (config, table)
}

fn fill(config: &mut Config, table: &Table) {
    let text = |path: &[&str], default: &str| match at(table, path).and_then(Value::as_str) {
        Some(text) => text.to_owned(),
        None => default.to_owned(),
    };
    config.root = text(&["paths", "root"], "/var/lib/carpel").into();
    config.run = text(&["paths", "run"], "/run/carpel").into();
    config.bridge = text(&["network", "driver"], "bridge") == "bridge";
    let masquerade = at(table, &["network", "bridge", "masquerade"]);
    config.masquerade = masquerade.and_then(Value::as_bool).unwrap_or(true);
    let cidrs = at(table, &["network", "bridge", "pod_cidrs"]).and_then(Value::as_array);
    config.pod_cidrs = match cidrs {
        Some(cidrs) => cidrs
            .iter()
            .filter_map(|cidr| Some(cidr.as_str()?.to_owned()))
            .collect(),
        None => vec!["10.88.0.0/16".to_owned()],
    };
}

/// The value at a dotted key.
pub(super) fn at<'a>(table: &'a Table, path: &[&str]) -> Option<&'a Value> {
    let (last, tables) = path.split_last()?;
    let mut table = table;
    for name in tables {
        table = table.get(*name)?.as_table()?;
    }
    table.get(*last)
}

#[cfg(test)]
mod tests {
    use super::{Config, fill};

    #[test]
    fn what_is_not_told_is_the_default() {
        let mut config = Config::default();
        let text = "[paths]\nroot = \"/r\"\n[network]\ndriver = \"none\"\n\
                    [network.bridge]\nmasquerade = false\npod_cidrs = [\"fd00::/64\"]\n";
        fill(&mut config, &text.parse().unwrap());
        assert_eq!(config.root.to_str(), Some("/r"));
        assert_eq!(config.run.to_str(), Some("/run/carpel"));
        assert!(!config.bridge && !config.masquerade);
        assert_eq!(config.pod_cidrs, ["fd00::/64"]);
        fill(&mut config, &toml::Table::new());
        assert!(config.bridge && config.masquerade);
    }
}
