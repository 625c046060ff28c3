//! `carpel images`, `carpel get images`, and how an image is found.

use carpel_proto::cri;

use crate::args::Format;
use crate::client::Session;
use crate::error::{CliError, Doing, Result};
use crate::output::{self, Table};
use crate::resolve::short;
use crate::{out, view};

pub(super) async fn run(session: &Session, names: &[String], format: Option<Format>) -> Result<()> {
    let mut images = if names.is_empty() {
        all(session).await?
    } else {
        Vec::new()
    };
    for name in names {
        images.push(require(session, name).await?);
    }
    images.sort_by(|a, b| (&a.repo_tags, &a.id).cmp(&(&b.repo_tags, &b.id)));
    let shown = || images.iter().map(view::image).collect::<Vec<_>>();
    let format = format.unwrap_or_default();
    match (format, names.len()) {
        (Format::Json, 1) => out::text(&output::json(&shown()[0])?),
        (Format::Yaml, 1) => out::text(&output::yaml(&shown()[0])?),
        (Format::Json, _) => out::text(&output::json(&view::List::of(shown()))?),
        (Format::Yaml, _) => out::text(&output::yaml(&view::List::of(shown()))?),
        (Format::Name, _) => images.iter().try_for_each(|image| out::line(&image.id)),
        (Format::Table | Format::Wide, _) => print(&images, format == Format::Wide),
    }
}

fn print(images: &[cri::Image], wide: bool) -> Result<()> {
    let mut heading = vec!["IMAGE", "TAG", "IMAGE ID", "SIZE"];
    if wide {
        heading.extend(["DIGEST", "USER", "PINNED"]);
    }
    let mut table = Table::new(&heading);
    for image in images {
        for (name, tag) in names(image) {
            let mut row = vec![
                name.clone(),
                tag,
                short(&image.id).to_owned(),
                view::size(image.size),
            ];
            if wide {
                row.extend([digest(image, &name), user(image), image.pinned.to_string()]);
            }
            table.row(row);
        }
    }
    if table.is_empty() {
        out::note("there are no images");
        return Ok(());
    }
    out::text(&table.render())
}

/// Name and tag of each tag; an image known by digest only has one row of its own.
fn names(image: &cri::Image) -> Vec<(String, String)> {
    let tag = |text: &String| match text.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name.to_owned(), tag.to_owned()),
        _ => (text.clone(), String::new()),
    };
    let mut names: Vec<_> = image.repo_tags.iter().map(tag).collect();
    if names.is_empty() {
        let digest = image.repo_digests.first();
        let name = digest
            .and_then(|digest| digest.split_once('@'))
            .map_or("", |(name, _)| name);
        names.push((name.to_owned(), String::new()));
    }
    names
}

fn digest(image: &cri::Image, name: &str) -> String {
    let digests = || {
        image
            .repo_digests
            .iter()
            .filter_map(|text| text.split_once('@'))
    };
    let own = digests()
        .find(|(of, _)| *of == name)
        .or_else(|| digests().next());
    own.map(|(_, digest)| short(digest).to_owned())
        .unwrap_or_default()
}

fn user(image: &cri::Image) -> String {
    match &image.uid {
        Some(uid) => uid.value.to_string(),
        None => image.username.clone(),
    }
}

async fn all(session: &Session) -> Result<Vec<cri::Image>> {
    let request = session.request(cri::ListImagesRequest { filter: None });
    Ok(session
        .images()
        .list_images(request)
        .await
        .doing("list images")?
        .images)
}

/// The image of that name or id; `None` when the runtime has none.
pub(super) async fn find(session: &Session, name: &str) -> Result<Option<cri::Image>> {
    let request = session.request(cri::ImageStatusRequest {
        image: Some(spec(name)),
        verbose: false,
    });
    let reply = session.images().image_status(request).await;
    Ok(reply.doing(format_args!("look for image {name}"))?.image)
}

pub(super) async fn require(session: &Session, name: &str) -> Result<cri::Image> {
    let image = find(session, name).await?;
    image.ok_or_else(|| CliError::Absent {
        kind: "image",
        wanted: name.to_owned(),
    })
}

pub(super) fn spec(name: &str) -> cri::ImageSpec {
    cri::ImageSpec {
        image: name.to_owned(),
        ..cri::ImageSpec::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_tags_are_parted() {
        let image = cri::Image {
            repo_tags: vec!["localhost:5000/a:1".to_owned()],
            repo_digests: vec!["localhost:5000/a@sha256:0123456789abcdef".to_owned()],
            ..cri::Image::default()
        };
        assert_eq!(
            names(&image),
            [("localhost:5000/a".to_owned(), "1".to_owned())]
        );
        assert_eq!(digest(&image, "localhost:5000/a"), "0123456789abc");
        let bare = cri::Image {
            repo_tags: Vec::new(),
            ..image
        };
        assert_eq!(
            names(&bare),
            [("localhost:5000/a".to_owned(), String::new())]
        );
    }
}
