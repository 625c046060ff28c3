//! Unix sockets that clients find.

use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use tokio::net::UnixListener;

use crate::error::Error;

/// Binds `path` for root alone. A socket that nobody listens on any more is
/// replaced; one that somebody serves is not.
pub(crate) fn bind(path: &Path) -> Result<UnixListener, Error> {
    let failed = |what: &str| Error::io(format!("{what} {}", path.display()));
    if let Some(dir) = path.parent() {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(dir)
            .map_err(Error::io(format!("create {}", dir.display())))?;
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => {
            return Err(Error::Unavailable(format!(
                "somebody serves {} already",
                path.display()
            )));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(_) => std::fs::remove_file(path).map_err(failed("remove the old socket"))?,
    }
    let listener = UnixListener::bind(path).map_err(failed("bind"))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .map_err(failed("protect"))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::bind;

    #[tokio::test]
    async fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/carpel.sock");
        let live = bind(&path).unwrap();
        assert!(bind(&path).unwrap_err().to_string().contains("serves"));
        drop(live);
        assert!(path.exists());
        bind(&path).unwrap();
    }
}
