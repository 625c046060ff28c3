//! The demo of carpel in one static file: a web server, a client of it, a reader of its log,
//! and the writer of the image that holds nothing but this file.

#![forbid(unsafe_code)]

mod address;
mod archive;
mod client;
mod readlog;
mod server;
mod task;

use std::env;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

const USAGE: &str = "\
usage: carpel-demo-web serve [--port PORT] [--log FILE]
       carpel-demo-web get URL
       carpel-demo-web read-log FILE [URL]
       carpel-demo-web sleep [SECONDS]
       carpel-demo-web pack FILE.tar [NAME:TAG]";

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    match run(&args.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody may be listening any more.
            drop(writeln!(io::stderr(), "carpel-demo-web: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[&str]) -> io::Result<()> {
    match args {
        [] | ["serve"] => serve(port(None)?, None),
        ["serve", "--port", given] => serve(port(Some(given))?, None),
        ["serve", "--log", log] => serve(port(None)?, Some(log)),
        ["serve", "--port", given, "--log", log] => serve(port(Some(given))?, Some(log)),
        ["get", url] => client::print(url),
        ["read-log", file] => read_log(file, None),
        ["read-log", file, url] => read_log(file, Some(url)),
        ["sleep"] => sleep("infinity"),
        ["sleep", seconds] => sleep(seconds),
        ["pack", file] => archive::write(Path::new(file), archive::NAME),
        ["pack", file, name] => archive::write(Path::new(file), name),
        _ => Err(io::Error::other(USAGE)),
    }
}

/// From the argument, from the variable PORT, or 80.
fn port(given: Option<&str>) -> io::Result<u16> {
    let variable = env::var("PORT").ok();
    let Some(text) = given.or(variable.as_deref()) else {
        return Ok(80);
    };
    text.parse()
        .map_err(|_| io::Error::other(format!("{text:?} is not a port")))
}

fn serve(port: u16, log: Option<&str>) -> io::Result<()> {
    let server = server::Server::bind(port, log.map(Path::new))?;
    task::until_signal(move || server.run())
}

fn read_log(file: &str, url: Option<&str>) -> io::Result<()> {
    let (file, url) = (file.to_owned(), url.map(str::to_owned));
    task::until_signal(move || readlog::run(Path::new(&file), url.as_deref()))
}

fn sleep(seconds: &str) -> io::Result<()> {
    let time = match seconds {
        "infinity" => Duration::MAX,
        text => {
            let fault = |_| io::Error::other(format!("{text:?} is not a number of seconds"));
            Duration::from_secs(text.parse().map_err(fault)?)
        }
    };
    task::until_signal(move || {
        thread::sleep(time);
        Ok(())
    })
}
