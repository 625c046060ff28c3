//! Who may read.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

const TOKEN: &str = "a-token-that-the-test-made-up";

/// How a registry wants to know its clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Auth {
    Open,
    Basic {
        user: String,
        password: String,
    },
    /// A token from `/token`, which wants the same by Basic.
    Bearer {
        user: String,
        password: String,
    },
}

impl Auth {
    pub fn basic(user: &str, password: &str) -> Self {
        Self::Basic {
            user: user.to_owned(),
            password: password.to_owned(),
        }
    }

    pub fn bearer(user: &str, password: &str) -> Self {
        Self::Bearer {
            user: user.to_owned(),
            password: password.to_owned(),
        }
    }

    /// Whether a request with this `Authorization` may read.
    pub(super) fn admits(&self, header: Option<&str>) -> bool {
        match self {
            Self::Open => true,
            Self::Basic { .. } => self.knows(header),
            Self::Bearer { .. } => header == Some(&format!("Bearer {TOKEN}")),
        }
    }

    /// Whether this `Authorization` carries the right user and password.
    fn knows(&self, header: Option<&str>) -> bool {
        match self {
            Self::Open => true,
            Self::Basic { user, password } | Self::Bearer { user, password } => {
                let expected = STANDARD.encode(format!("{user}:{password}"));
                header == Some(&format!("Basic {expected}"))
            }
        }
    }

    /// Content of `/token`.
    pub(super) fn token(&self, header: Option<&str>) -> Option<String> {
        self.knows(header)
            .then(|| format!(r#"{{"token":"{TOKEN}","expires_in":300}}"#))
    }

    /// `WWW-Authenticate` of a refusal.
    pub(super) fn challenge(&self, host: &str) -> Option<String> {
        match self {
            Self::Open => None,
            Self::Basic { .. } => Some(r#"Basic realm="test""#.to_owned()),
            Self::Bearer { .. } => Some(format!(
                r#"Bearer realm="http://{host}/token",service="test",scope="repository:any:pull""#
            )),
        }
    }
}
