//! `carpel pull`, with a bar for each layer where the runtime can tell.

use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use carpel_proto::admin::layer_progress::Phase;
use carpel_proto::admin::pull_image_response::What;
use carpel_proto::admin::{LayerProgress, PullImageRequest as AdminPull};
use carpel_proto::cri;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tonic::Request;

use super::images;
use crate::args::Pull;
use crate::client::{Admin, Session};
use crate::error::{CliError, Doing, Result};
use crate::out;
use crate::resolve::short;

/// User and password for a registry.
#[derive(Clone, Default)]
pub(super) struct Credentials {
    user: String,
    password: String,
}

pub(super) async fn run(session: &Session, args: &Pull) -> Result<()> {
    let credentials = match (&args.creds, &args.creds_file) {
        (Some(text), _) => parse(text)?,
        (None, Some(file)) => parse(read(file)?.trim_end_matches(['\n', '\r']))?,
        (None, None) => Credentials::default(),
    };
    let id = pull(session, &args.image, credentials).await?;
    out::line(format!("image {} is {id}", args.image))
}

/// Never shows the text: it may hold a password.
fn parse(text: &str) -> Result<Credentials> {
    let fault = || CliError::Usage("credentials are written as user:password".to_owned());
    let (user, password) = text.split_once(':').ok_or_else(fault)?;
    if user.is_empty() {
        return Err(fault());
    }
    Ok(Credentials {
        user: user.to_owned(),
        password: password.to_owned(),
    })
}

fn read(path: &Path) -> Result<String> {
    if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin()
            .read_to_string(&mut text)
            .doing("read credentials")?;
        return Ok(text);
    }
    fs::read_to_string(path).doing(format_args!("read {}", path.display()))
}

/// Fetches an image and gives its id. A pull has no deadline: the runtime watches its progress.
pub(super) async fn pull(
    session: &Session,
    image: &str,
    credentials: Credentials,
) -> Result<String> {
    match session.admin_if_there().await {
        Some(admin) => with_layers(admin, image, credentials).await,
        None => plain(session, image, credentials).await,
    }
}

async fn plain(session: &Session, image: &str, credentials: Credentials) -> Result<String> {
    let spinner = ProgressBar::new_spinner().with_message(format!("pulling {image}"));
    spinner.enable_steady_tick(Duration::from_millis(100));
    let auth = (!credentials.user.is_empty()).then(|| cri::AuthConfig {
        username: credentials.user,
        password: credentials.password,
        ..cri::AuthConfig::default()
    });
    let request = cri::PullImageRequest {
        image: Some(images::spec(image)),
        auth,
        sandbox_config: None,
    };
    let reply = session.images().pull_image(Request::new(request)).await;
    spinner.finish_and_clear();
    Ok(reply.doing(format_args!("pull {image}"))?.image_ref)
}

async fn with_layers(mut admin: Admin, image: &str, credentials: Credentials) -> Result<String> {
    let doing = format!("pull {image}");
    let request = AdminPull {
        image: image.to_owned(),
        username: credentials.user,
        password: credentials.password,
    };
    let mut stream = admin.pull_image(request).await.doing(&doing)?;
    let mut bars = Bars::default();
    let mut id = None;
    let result = loop {
        match stream
            .message()
            .await
            .map(tonic::Response::new)
            .doing(&doing)
        {
            Ok(Some(message)) => match message.what {
                Some(What::Layer(layer)) => bars.show(&layer),
                Some(What::ImageId(given)) => id = Some(given),
                None => {}
            },
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    bars.clear(result.is_err());
    result?;
    id.ok_or_else(|| CliError::refused(format!("{doing}: the runtime ended without an image")))
}

/// One bar a layer; nothing is drawn when stderr is no terminal.
#[derive(Default)]
struct Bars {
    screen: MultiProgress,
    layers: HashMap<String, ProgressBar>,
}

impl Bars {
    fn show(&mut self, layer: &LayerProgress) {
        let bar = self.layers.entry(layer.digest.clone()).or_insert_with(|| {
            let bar = self
                .screen
                .add(ProgressBar::no_length().with_style(style()));
            bar.set_prefix(short(&layer.digest).to_owned());
            bar
        });
        // Reports without bytes say what happens, not that nothing is there.
        if layer.total > 0 {
            bar.set_length(layer.total.max(layer.current));
        }
        if layer.current > 0 {
            bar.set_position(layer.current);
        }
        let message = match layer.phase() {
            Phase::Waiting => "waiting",
            Phase::Fetching => "fetching",
            Phase::Unpacking => "unpacking",
            Phase::Done => "done",
            Phase::Exists => "exists already",
        };
        bar.set_message(message);
        if matches!(layer.phase(), Phase::Done | Phase::Exists) {
            bar.finish();
        }
    }

    fn clear(&self, failed: bool) {
        if failed {
            // The screen is only decoration; the error follows.
            drop(self.screen.clear());
        }
        self.layers.values().for_each(|bar| {
            if !bar.is_finished() {
                bar.abandon();
            }
        });
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{prefix} [{bar:30}] {bytes:>10}/{total_bytes:10} {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials() {
        let given = parse("me:a:b").unwrap();
        assert_eq!(
            (given.user.as_str(), given.password.as_str()),
            ("me", "a:b")
        );
        for bad in ["me", "", ":x"] {
            let error = parse(bad).err().unwrap();
            assert_eq!(error.exit_code(), 2);
        }
        assert!(
            !parse("secret")
                .err()
                .unwrap()
                .to_string()
                .contains("secret")
        );
    }

    #[test]
    fn the_style_of_the_bars_can_be_read() {
        assert!(
            ProgressStyle::with_template("{prefix} [{bar:30}] {bytes}/{total_bytes} {msg}").is_ok()
        );
    }
}
