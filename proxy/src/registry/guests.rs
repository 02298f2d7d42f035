//! Who may use the door: users with a secret each, in a file of the operator's.
//!
//! A line is `name:sha256:<hex digest of the secret>`; a client shows `Basic name:secret` or `Bearer secret`. The file keeps no
//! secret, and the secrets are made by a machine (`openssl rand -hex 24`), so that nothing slower than SHA-256 is needed: a
//! digest of 24 random bytes cannot be guessed at whatever speed. Passwords that people choose do not belong here.
//!
//! The file is looked at once a second at most. One that cannot be read lets nobody in.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use http::{HeaderMap, header};
use kato_shared::Digest;
use tokio::time::Instant;

/// How long the file is taken to be as it was.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// See the module. Clones share what was read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Guests(Option<Arc<File>>);

#[derive(Debug)]
struct File {
    path: PathBuf,
    read: Mutex<Option<Read>>,
}

#[derive(Debug)]
struct Read {
    looked: Instant,
    stamp: Option<(SystemTime, u64)>,
    users: Arc<[User]>,
}

#[derive(Debug, PartialEq, Eq)]
struct User {
    name: String,
    secret: Digest,
}

impl Guests {
    /// Those of the file at `path`; without one everybody is a guest.
    pub(crate) fn new(path: Option<&Path>) -> Self {
        Self(path.map(|path| {
            Arc::new(File {
                path: path.to_owned(),
                read: Mutex::new(None),
            })
        }))
    }

    /// Whether everybody may use the door.
    pub(crate) const fn is_everybody(&self) -> bool {
        self.0.is_none()
    }

    /// Whether a request with `headers` comes from one of them.
    pub(crate) fn admit(&self, headers: &HeaderMap) -> bool {
        let Some(file) = &self.0 else { return true };
        let Some((name, secret)) = shown(headers) else {
            return false;
        };
        let secret = Digest::of(&secret);
        let is_user =
            |user: &User| user.secret == secret && name.as_ref().is_none_or(|name| *name == user.name);
        file.users().iter().any(is_user)
    }
}

/// The name, where one is shown, and the secret.
fn shown(headers: &HeaderMap) -> Option<(Option<String>, Vec<u8>)> {
    let mut lines = headers.get_all(header::AUTHORIZATION).iter();
    let (line, None) = (lines.next()?.to_str().ok()?, lines.next()) else {
        return None;
    };
    let (scheme, value) = line.trim().split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some((None, value.trim().as_bytes().to_vec()));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = BASE64_STANDARD.decode(value.trim()).ok()?;
    let colon = pair.iter().position(|byte| *byte == b':')?;
    let name = String::from_utf8(pair[..colon].to_vec()).ok()?;
    Some((Some(name), pair[colon + 1..].to_vec()))
}

impl File {
    fn users(&self) -> Arc<[User]> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if let Some(known) = read.as_ref().filter(|known| now < known.looked + LOOK_EVERY) {
            return Arc::clone(&known.users);
        }
        let stamp = std::fs::metadata(&self.path)
            .and_then(|found| Ok((found.modified()?, found.len())))
            .ok();
        if let Some(known) = read
            .as_mut()
            .filter(|known| stamp.is_some() && known.stamp == stamp)
        {
            known.looked = now;
            return Arc::clone(&known.users);
        }
        let users: Arc<[User]> = std::fs::read_to_string(&self.path)
            .map_err(|error| error.to_string())
            .and_then(|text| parse(&text))
            .unwrap_or_else(|error| {
                tracing::error!(path = %self.path.display(), error, "registry.users_file cannot be used; nobody is let in");
                Vec::new()
            })
            .into();
        *read = Some(Read {
            looked: now,
            stamp,
            users: Arc::clone(&users),
        });
        users
    }
}

/// The users of a file; empty lines and lines that begin with `#` say nothing.
fn parse(text: &str) -> Result<Vec<User>, String> {
    let lines = text.lines().enumerate().map(|(nth, line)| (nth + 1, line.trim()));
    lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(nth, line)| {
            let expected = || format!("line {nth}: expected name:sha256:<64 hexadecimal digits>");
            let (name, secret) = line.split_once(':').ok_or_else(expected)?;
            if name.is_empty() || !secret.starts_with("sha256:") {
                return Err(expected());
            }
            let secret = secret.parse().map_err(|_no_digest| expected())?;
            Ok(User {
                name: name.to_owned(),
                secret,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asking(authorization: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::AUTHORIZATION, authorization.parse().unwrap())])
    }

    fn basic(pair: &str) -> HeaderMap {
        asking(&format!("Basic {}", BASE64_STANDARD.encode(pair)))
    }

    #[test]
    fn a_user_shows_name_and_secret_or_the_secret_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        let line = format!("# nodes\n\nnode:{}\n", Digest::of(b"s3cr:et"));
        kato_shared::durable::write(&path, line.as_bytes(), 0o600).unwrap();
        let guests = Guests::new(Some(&path));
        assert!(guests.admit(&basic("node:s3cr:et")));
        assert!(guests.admit(&asking("bearer s3cr:et")));
        for refused in [
            basic("other:s3cr:et"),
            basic("node:wrong"),
            asking("Digest x"),
            HeaderMap::new(),
        ] {
            assert!(!guests.admit(&refused), "{refused:?}");
        }
        assert!(Guests::new(None).admit(&HeaderMap::new()));
    }

    #[test]
    fn a_file_that_cannot_be_read_lets_nobody_in() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        let missing = Guests::new(Some(&path));
        assert!(!missing.admit(&basic("node:x")));
        kato_shared::durable::write(&path, b"node:$2y$05$abc\n", 0o600).unwrap();
        assert!(!Guests::new(Some(&path)).admit(&basic("node:x")));
        assert_eq!(
            parse("node:$2y$05$abc").unwrap_err(),
            "line 1: expected name:sha256:<64 hexadecimal digits>"
        );
    }
}
