//! Writes an image whose only layer holds this executable: an OCI layout in a tar file, with
//! the manifest that `docker load` reads beside it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::server::named;

pub(crate) const NAME: &str = "carpel.local/web:latest";
const PROGRAM: &str = "carpel-demo-web";

pub(crate) fn write(path: &Path, name: &str) -> io::Result<()> {
    let program = fs::read("/proc/self/exe").map_err(|error| named("read myself", &error))?;
    if needs_interpreter(&program) {
        return Err(io::Error::other(
            "this build is not static and would not run in an empty image; build it with \
             RUSTFLAGS=-Ctarget-feature=+crt-static",
        ));
    }
    let file =
        File::create(path).map_err(|error| named(&format!("create {}", path.display()), &error))?;
    let mut out = io::BufWriter::new(file);
    image(&program, name, &mut out)?;
    out.flush()
}

/// Whether a 64-bit ELF file asks for a dynamic loader.
fn needs_interpreter(elf: &[u8]) -> bool {
    let bytes = |at: usize, length: usize| {
        let slice = elf.get(at..at + length)?;
        Some(
            slice
                .iter()
                .rev()
                .fold(0_usize, |value, byte| value << 8 | usize::from(*byte)),
        )
    };
    let headers = || Some((bytes(32, 8)?, bytes(54, 2)?, bytes(56, 2)?));
    let Some((offset, size, count)) = headers() else {
        return true;
    };
    const PT_INTERP: usize = 3;
    (0..count).any(|index| bytes(offset + index * size, 4) == Some(PT_INTERP))
}

struct Blob {
    digest: String,
    data: Vec<u8>,
}

impl Blob {
    fn new(data: Vec<u8>) -> Self {
        let hash = Sha256::digest(&data);
        let digest = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        Self { digest, data }
    }

    fn path(&self) -> String {
        format!("blobs/sha256/{}", self.digest)
    }

    fn descriptor(&self, media_type: &str) -> Value {
        json!({
            "mediaType": media_type,
            "digest": format!("sha256:{}", self.digest),
            "size": self.data.len(),
        })
    }
}

fn image(program: &[u8], name: &str, out: &mut impl Write) -> io::Result<()> {
    let layer = Blob::new(layer(program)?);
    let config = Blob::new(serde_json::to_vec(&json!({
        "architecture": architecture(),
        "os": "linux",
        "config": {
            "Entrypoint": [format!("/{PROGRAM}")],
            "Cmd": ["serve"],
            "Env": ["PATH=/"],
            "ExposedPorts": {"80/tcp": {}},
            "WorkingDir": "/",
        },
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", layer.digest)]},
        "history": [{"created_by": format!("{PROGRAM} pack")}],
    }))?);
    let manifest = Blob::new(serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config.descriptor("application/vnd.oci.image.config.v1+json"),
        "layers": [layer.descriptor("application/vnd.oci.image.layer.v1.tar")],
    }))?);
    let mut listed = manifest.descriptor("application/vnd.oci.image.manifest.v1+json");
    listed["annotations"] = json!({
        "io.containerd.image.name": name,
        "org.opencontainers.image.ref.name": tag(name),
    });
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [listed],
    });
    let docker = json!([{
        "Config": config.path(),
        "RepoTags": [name],
        "Layers": [layer.path()],
    }]);
    let mut archive = tar::Builder::new(out);
    file(
        &mut archive,
        "oci-layout",
        0o644,
        br#"{"imageLayoutVersion":"1.0.0"}"#,
    )?;
    file(
        &mut archive,
        "index.json",
        0o644,
        &serde_json::to_vec(&index)?,
    )?;
    file(
        &mut archive,
        "manifest.json",
        0o644,
        &serde_json::to_vec(&docker)?,
    )?;
    for blob in [&config, &manifest, &layer] {
        file(&mut archive, &blob.path(), 0o644, &blob.data)?;
    }
    archive.finish()
}

fn tag(name: &str) -> &str {
    match name.rsplit_once(':') {
        Some((_, tag)) if !tag.contains('/') => tag,
        _ => "latest",
    }
}

/// What Go calls this machine.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

fn layer(program: &[u8]) -> io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    file(&mut archive, PROGRAM, 0o755, program)?;
    file(
        &mut archive,
        "etc/passwd",
        0o644,
        b"root:x:0:0:root:/:/\nnobody:x:65534:65534::/:/\n",
    )?;
    file(
        &mut archive,
        "etc/group",
        0o644,
        b"root:x:0:\nnogroup:x:65534:\n",
    )?;
    archive.into_inner()
}

/// Same bytes, same archive: no times and no names of whoever builds it.
fn file(
    archive: &mut tar::Builder<impl Write>,
    path: &str,
    mode: u32,
    data: &[u8],
) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(mode);
    header.set_size(data.len() as u64);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    archive.append_data(&mut header, path, data)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::io::Read;

    use super::*;

    fn entries(tar: &[u8]) -> HashMap<String, Vec<u8>> {
        let mut archive = tar::Archive::new(tar);
        let read = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let mut data = Vec::new();
            entry.read_to_end(&mut data).unwrap();
            (path, data)
        });
        read.collect()
    }

    fn blob<'a>(files: &'a HashMap<String, Vec<u8>>, descriptor: &Value) -> &'a [u8] {
        let digest = descriptor["digest"].as_str().unwrap().replace(':', "/");
        let data = &files[&format!("blobs/{digest}")];
        assert_eq!(data.len() as u64, descriptor["size"].as_u64().unwrap());
        data
    }

    #[test]
    fn the_archive_leads_from_its_index_to_the_program() {
        let mut tar = Vec::new();
        image(b"program", "a.b/web:1", &mut tar).unwrap();
        let files = entries(&tar);
        let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
        let listed = &index["manifests"][0];
        assert_eq!(
            listed["annotations"]["io.containerd.image.name"],
            "a.b/web:1"
        );
        assert_eq!(
            listed["annotations"]["org.opencontainers.image.ref.name"],
            "1"
        );
        let manifest: Value = serde_json::from_slice(blob(&files, listed)).unwrap();
        let config: Value = serde_json::from_slice(blob(&files, &manifest["config"])).unwrap();
        assert_eq!(
            config["rootfs"]["diff_ids"][0],
            manifest["layers"][0]["digest"]
        );
        let layer = entries(blob(&files, &manifest["layers"][0]));
        assert_eq!(layer[PROGRAM], b"program");
        let docker: Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
        assert_eq!(docker[0]["RepoTags"][0], "a.b/web:1");
        assert!(files.contains_key(docker[0]["Layers"][0].as_str().unwrap()));
    }

    #[test]
    fn the_same_program_makes_the_same_archive() {
        let make = || {
            let mut tar = Vec::new();
            image(b"program", NAME, &mut tar).unwrap();
            tar
        };
        assert_eq!(make(), make());
    }

    #[test]
    fn a_dynamic_program_is_told_from_a_static_one() {
        let mut elf = vec![0; 64 + 56];
        elf[32] = 64;
        elf[54] = 56;
        elf[56] = 1;
        elf[64] = 1;
        assert!(!needs_interpreter(&elf));
        elf[64] = 3;
        assert!(needs_interpreter(&elf));
        assert!(needs_interpreter(b"short"));
    }
}
