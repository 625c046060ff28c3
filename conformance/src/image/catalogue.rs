//! The images that critest and our own tests ask for, under the names they ask for.

use serde_json::json;

use super::debian::{applets, architecture, helper, program};
use super::{Content, ImageBuilder, Layer};

const CRI_TOOLS: &str = "k8s-staging-cri-tools/";

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
    www-data:x:33:33:www-data:/var/www:/bin/false\n\
    nobody:x:65534:65534:nobody:/home:/bin/false\n";
const GROUP: &str = "root:x:0:\nwww-data:x:33:\nnogroup:x:65534:\n";

pub(super) fn build() -> anyhow::Result<Content> {
    let mut content = Content::default();
    let base = full_layer()?;
    let busybox = || ImageBuilder::new().tar(base.clone(), super::Compression::Gzip);

    busybox().push(
        &mut content,
        &[
            "e2e-test-images/busybox:1.29-2",
            "library/busybox:latest",
            "docker/library/busybox:1",
        ],
    );
    web_servers(&mut content, &busybox)?;
    pause(&mut content)?;
    privileges(&mut content, &busybox)?;
    pulled(&mut content, &busybox);
    tools(&mut content, &busybox)?;
    Ok(content)
}

/// The layer that all images of the catalogue but `pause` begin with.
pub fn full_layer() -> anyhow::Result<Vec<u8>> {
    Ok(busybox()?.finish())
}

/// Busybox alone with its libraries, as `/bin/busybox`, `/bin/sh` and a few more.
pub fn busybox_layer() -> anyhow::Result<Vec<u8>> {
    let mut layer = Layer::new()
        .directory("tmp", 0o1777)
        .directory("root", 0o700);
    layer = program(layer, "/bin/busybox", "bin/busybox")?;
    for applet in ["sh", "ls", "cat", "sleep", "true"] {
        layer = layer.hard_link(&format!("bin/{applet}"), "bin/busybox");
    }
    Ok(layer.finish())
}

/// Each applet is a file of its own: a test masks `/bin/ls` and must not hit the shell.
fn busybox() -> anyhow::Result<Layer> {
    let mut layer = Layer::new()
        .directory("tmp", 0o1777)
        .directory("root", 0o700);
    for path in [
        "dev", "proc", "sys", "home", "run", "var/lib", "var/www", "usr/bin",
    ] {
        layer = layer.directory(path, 0o755);
    }
    layer = layer.file("etc/passwd", PASSWD.as_bytes(), 0o644).file(
        "etc/group",
        GROUP.as_bytes(),
        0o644,
    );
    layer = program(layer, "/bin/busybox", "bin/busybox")?;
    layer = program(layer, "/usr/bin/pgrep", "bin/pgrep")?;
    layer = program(layer, "/usr/bin/ipcs", "bin/ipcs")?;
    for applet in applets()?
        .iter()
        .filter(|name| !matches!(name.as_str(), "busybox" | "linuxrc"))
    {
        layer = layer.hard_link(&format!("bin/{applet}"), "bin/busybox");
    }
    Ok(layer)
}

fn web_servers(content: &mut Content, busybox: &impl Fn() -> ImageBuilder) -> anyhow::Result<()> {
    let nginx = |port: u16| -> anyhow::Result<ImageBuilder> {
        let config = format!(
            "user www-data;\npid /var/run/nginx.pid;\nerror_log /dev/stderr;\nevents {{}}\n\
             http {{\n  access_log /dev/stdout;\n  \
             server {{ listen {port}; root /usr/share/nginx/html; }}\n}}\n"
        );
        let layer = Layer::new()
            .directory("var/log/nginx", 0o755)
            .directory("var/lib/nginx", 0o755)
            .symlink("var/run", "/run")
            .file(
                "usr/share/nginx/html/index.html",
                b"<h1>Welcome</h1>\n",
                0o644,
            )
            .file("etc/nginx/nginx.conf", config.as_bytes(), 0o644);
        Ok(busybox()
            .layer(program(layer, "/usr/sbin/nginx", "usr/sbin/nginx")?)
            .with("Cmd", json!(["nginx", "-g", "daemon off;"]))
            .with("StopSignal", json!("SIGQUIT")))
    };
    nginx(80)?.push(
        content,
        &["e2e-test-images/nginx:1.14-2", "library/nginx:latest"],
    );
    let host = format!("{CRI_TOOLS}hostnet-nginx-{}:latest", architecture());
    nginx(12003)?.push(content, &[&host]);

    busybox()
        .layer(Layer::new().file("www/index.html", b"<h1>It works</h1>\n", 0o644))
        .with(
            "Cmd",
            json!([
                "/bin/sh",
                "-c",
                "echo httpd; exec httpd -f -v -p 80 -h /www"
            ]),
        )
        .push(content, &["e2e-test-images/httpd:2.4.39-4"]);
    Ok(())
}

/// One manifest, whichever registry it is asked of: the repositories have no host here.
fn pause(content: &mut Content) -> anyhow::Result<()> {
    ImageBuilder::new()
        .layer(Layer::new().file("pause", &helper("pause")?, 0o755))
        .with("Entrypoint", json!(["/pause"]))
        .with("Cmd", json!(null))
        .push(content, &["pause:3.9", "pause:3.10"]);
    Ok(())
}

fn privileges(content: &mut Content, busybox: &impl Fn() -> ImageBuilder) -> anyhow::Result<()> {
    busybox()
        .layer(Layer::new().file("nnp", &helper("nonewprivs")?, 0o6755))
        .with("Cmd", json!(["/nnp"]))
        .push(content, &["e2e-test-images/nonewprivs:1.3"]);

    let passwd = format!("{PASSWD}default-user:x:1000:1000::/home:/bin/sh\n");
    let group =
        format!("{GROUP}default-user:x:1000:\ngroup-defined-in-image:x:50000:default-user\n");
    let layer = Layer::new()
        .file("etc/passwd", passwd.as_bytes(), 0o644)
        .file("etc/group", group.as_bytes(), 0o644);
    let name = format!("{CRI_TOOLS}test-image-predefined-group:latest");
    busybox()
        .layer(layer)
        .with("User", json!("1000"))
        .push(content, &[&name]);
    Ok(())
}

/// Images that critest only pulls, lists and removes.
fn pulled(content: &mut Content, busybox: &impl Fn() -> ImageBuilder) {
    let mut push = |file: &str, user: Option<&str>, tags: &[&str]| {
        let mut image = busybox().layer(Layer::new().file(file, file.as_bytes(), 0o644));
        if let Some(user) = user {
            image = image.with("User", json!(user));
        }
        let names: Vec<_> = tags.iter().map(|tag| format!("{CRI_TOOLS}{tag}")).collect();
        image.push(
            content,
            &names.iter().map(String::as_str).collect::<Vec<_>>(),
        );
    };
    push("latest", None, &["test-image-latest:latest"]);
    push("tag", None, &["test-image-tag:test"]);
    push("all", None, &["test-image-tag:all"]);
    push(
        "tags",
        None,
        &[
            "test-image-tags:1",
            "test-image-tags:2",
            "test-image-tags:3",
        ],
    );
    for number in ["1", "2", "3"] {
        push(number, None, &[&format!("test-image-{number}:latest")]);
    }
    for (name, user) in [
        ("uid", "1002"),
        ("username", "www-data"),
        ("uid-group", "1003:1004"),
        ("username-group", "www-data:1004"),
    ] {
        push(
            name,
            Some(user),
            &[&format!("test-image-user-{name}:latest")],
        );
    }
}

fn tools(content: &mut Content, busybox: &impl Fn() -> ImageBuilder) -> anyhow::Result<()> {
    let layer = Layer::new()
        .file("echo", &helper("echo")?, 0o755)
        .file("count", &helper("count")?, 0o755)
        .file("syscalls", &helper("syscalls")?, 0o755);
    busybox().layer(layer).push(content, &["tools:1"]);
    Ok(())
}
