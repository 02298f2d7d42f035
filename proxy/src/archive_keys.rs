//! Which keys have signed an archive's `InRelease`, and until when they are good: what expires beside `Valid-Until`, and cannot be put off.
//!
//! The signature block is read here, as far as its issuers (RFC 9580 §5.2.3): pure. Keyrings are read by `gpg`, whose verdict about a key's expiry
//! is that of apt's own verifier.
//!
//! Deliberately absent: verifying signatures; apt does, on the machine that counts.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::{process::Command, time::timeout};

/// Where a Debian machine has keyrings of archives.
const FOLDERS: [&str; 3] = [
    "/usr/share/keyrings",
    "/etc/apt/keyrings",
    "/etc/apt/trusted.gpg.d",
];
/// What expires within it has to be seen to now: a newer keyring may have to be carried.
pub const SOON: SignedDuration = SignedDuration::from_hours(45 * 24);
/// Reading some dozens of keys takes a moment.
const PATIENCE: Duration = Duration::from_secs(30);

/// A key that has signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SigningKey {
    /// Its fingerprint, or its long identity where the signature says no more; hexadecimal, upper case.
    pub id: String,
    /// Until when its signatures are accepted; nothing says: not limited, or not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// Whether it is in a keyring that was looked at.
    pub is_known: bool,
}

/// A key of a keyring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RingKey {
    /// Its fingerprint, upper case.
    pub fingerprint: String,
    /// Until when it is good.
    pub expires: Option<Timestamp>,
}

/// The keys that have signed `in_release`, with what `ring` says about them.
pub fn signers(in_release: &str, ring: &[RingKey]) -> Vec<SigningKey> {
    let mut found = Vec::new();
    for id in issuers(in_release) {
        let key = ring.iter().find(|key| key.fingerprint.ends_with(&id));
        let key = SigningKey {
            id,
            expires: key.and_then(|key| key.expires),
            is_known: key.is_some(),
        };
        if !found.contains(&key) {
            found.push(key);
        }
    }
    found
}

/// How `end` stands `now`, where somebody has to see to it: it is over, or soon will be.
pub fn standing(end: Option<Timestamp>, now: Timestamp) -> Option<String> {
    let left = end?.duration_since(now);
    let days = kato_shared::counted(left.abs().as_hours() / 24, "day", "days");
    if left.is_negative() {
        Some(format!("EXPIRED {days} ago"))
    } else {
        (left < SOON).then(|| format!("ends in {days}"))
    }
}

/// The files in the usual places of this machine.
pub fn usual_keyrings() -> Vec<PathBuf> {
    let entries = FOLDERS
        .iter()
        .filter_map(|folder| std::fs::read_dir(folder).ok())
        .flatten()
        .flatten();
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| {
            let extension = path.extension().and_then(|extension| extension.to_str());
            matches!(extension, Some("gpg" | "asc" | "pgp"))
        })
        .collect();
    files.sort();
    files
}

/// The keys in `files`; none where `gpg` is not there, or cannot read them: then their expiry is not known, which is said.
#[expect(clippy::disallowed_methods, reason = "the owner of this child process")]
pub async fn ring(files: &[PathBuf]) -> Vec<RingKey> {
    let Ok(home) = tempfile::tempdir() else {
        return Vec::new();
    };
    let mut keys = Vec::new();
    // One by one: a file that cannot be read costs no other.
    for file in files {
        let mut gpg = Command::new("gpg");
        gpg.args(["--batch", "--no-tty", "--homedir"])
            .arg(home.path())
            .args(["--show-keys", "--with-colons", "--"])
            .arg(file)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        match timeout(PATIENCE, gpg.output()).await {
            Ok(Ok(output)) => keys.extend(listed(&String::from_utf8_lossy(&output.stdout))),
            Ok(Err(error)) => {
                tracing::warn!(%error, "gpg cannot be run: when keys of archives expire is not known");
                return keys;
            }
            Err(_elapsed) => log_slow(file),
        }
    }
    keys
}

fn log_slow(file: &Path) {
    tracing::warn!(file = %file.display(), "gpg does not end: when these keys expire is not known");
}

/// The keys in a listing of `gpg --with-colons` (`doc/DETAILS` of its sources): a key, then its fingerprint; a subkey is good no longer than its key.
fn listed(text: &str) -> Vec<RingKey> {
    let (mut keys, mut of_key, mut current) = (Vec::new(), None, None);
    for line in text.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        let time = || -> Option<Timestamp> {
            let seconds = fields.get(6)?.parse().ok()?;
            Timestamp::from_second(seconds).ok()
        };
        match fields.first() {
            Some(&"pub") => {
                of_key = time();
                current = of_key;
            }
            Some(&"sub") => current = [time(), of_key].into_iter().flatten().min(),
            Some(&"fpr") => {
                if let Some(fingerprint) = fields.get(9) {
                    keys.push(RingKey {
                        fingerprint: (*fingerprint).to_owned(),
                        expires: current,
                    });
                }
            }
            _ => {}
        }
    }
    keys
}

/// The issuers that the signatures at the end of `text` name.
fn issuers(text: &str) -> Vec<String> {
    let Some((_, block)) = text.split_once("-----BEGIN PGP SIGNATURE-----") else {
        return Vec::new();
    };
    let block = block.split("-----END").next().unwrap_or_default();
    // Header lines of the armour, and the checksum at its end, are not of it.
    let lines = block
        .lines()
        .map(str::trim)
        .filter(|line| !line.contains(':') && !line.starts_with('='));
    let Ok(bytes) = STANDARD.decode(lines.collect::<String>()) else {
        return Vec::new();
    };
    let (mut found, mut rest) = (Vec::new(), bytes.as_slice());
    while let Some((tag, body, after)) = packet(rest) {
        if tag == 2 {
            found.extend(issuer(body));
        }
        rest = after;
    }
    found
}

/// The first packet: its type, its body, and what follows (RFC 9580 §4.2). Bodies of partial or indeterminate length are none of signatures.
fn packet(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&head, rest) = bytes.split_first()?;
    let (tag, length, rest) = if head & 0x40 != 0 {
        let (length, rest) = length(rest)?;
        (head & 0x3f, length, rest)
    } else {
        let octets = match head & 3 {
            0 => 1,
            1 => 2,
            2 => 4,
            _ => return None,
        };
        let (length, rest) = rest.split_at_checked(octets)?;
        (head >> 2 & 0xf, big_endian(length), rest)
    };
    let (body, after) = rest.split_at_checked(length)?;
    Some((tag, body, after))
}

/// A length of the new format, which subpackets have as well (§4.2.1, §5.2.3.7).
fn length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (&first, rest) = bytes.split_first()?;
    match first {
        0..=191 => Some((usize::from(first), rest)),
        192..=223 => {
            let (&second, rest) = rest.split_first()?;
            Some(((usize::from(first) - 192) * 256 + usize::from(second) + 192, rest))
        }
        255 => {
            let (length, rest) = rest.split_at_checked(4)?;
            Some((big_endian(length), rest))
        }
        224..=254 => None,
    }
}

fn big_endian(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte))
}

/// The fingerprint of the issuer of a signature of version 4, else its key's identity.
fn issuer(body: &[u8]) -> Option<String> {
    let (&version, rest) = body.split_first()?;
    if version != 4 {
        return None;
    }
    let (hashed, rest) = area(rest.get(3..)?)?;
    let (unhashed, _) = area(rest)?;
    let (mut fingerprint, mut identity) = (None, None);
    for mut area in [hashed, unhashed] {
        while let Some((size, rest)) = length(area) {
            let Some((subpacket, after)) = rest.split_at_checked(size) else {
                break;
            };
            match subpacket.split_first() {
                // Critical ones have the highest bit.
                Some((kind, data)) if kind & 0x7f == 33 => fingerprint = data.get(1..).map(hex),
                Some((kind, data)) if kind & 0x7f == 16 => identity = Some(hex(data)),
                _ => {}
            }
            area = after;
        }
    }
    fingerprint.or(identity)
}

/// An area of subpackets, and what follows.
fn area(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (size, rest) = bytes.split_at_checked(2)?;
    rest.split_at_checked(big_endian(size))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a `String` cannot fail.
        let _infallible = write!(text, "{byte:02X}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_gives_keys_and_subkeys_with_their_ends() {
        let text = "pub:u:255:22:AAAA:1700000000:1900000000::u:::scSC:\nfpr:::::::::0123AAAA:\nuid:u::::1::B::x::::\n\
                    sub:u:255:22:BBBB:1700000000:1950000000:::::s:\nfpr:::::::::0123BBBB:\npub:-:255:22:CCCC:1700000000:::-:\nfpr:::::::::0123CCCC:\n";
        let end = Timestamp::from_second(1_900_000_000).ok();
        let keys = listed(text);
        let ends: Vec<_> = keys.iter().map(|key| key.expires).collect();
        assert_eq!(ends, [end, end, None], "a subkey is good no longer than its key");
    }

    /// A signature packet of the old format with an issuer's identity, and one of the new format with a fingerprint in a critical subpacket.
    #[test]
    fn issuers_are_read_from_either_form_and_matched_by_their_end() {
        let old = [
            0x88, 0x13, 4, 1, 22, 8, 0, 0, 0, 10, 9, 16, 1, 2, 3, 4, 5, 6, 7, 8, 0,
        ];
        let new = [0xc2, 0x11, 4, 1, 22, 8, 0, 7, 6, 0xa1, 4, 9, 9, 9, 9, 0, 0, 0, 0];
        let text = format!(
            "Date: x\n-----BEGIN PGP SIGNATURE-----\n\n{}\n=abcd\n-----END PGP SIGNATURE-----\n",
            STANDARD.encode([&old[..], &new[..]].concat())
        );
        let ring = [RingKey {
            fingerprint: "FFFF0102030405060708".into(),
            expires: Some(Timestamp::UNIX_EPOCH),
        }];
        let found = signers(&text, &ring);
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(
            (found[0].id.as_str(), found[0].is_known, found[0].expires),
            ("0102030405060708", true, Some(Timestamp::UNIX_EPOCH))
        );
        assert_eq!((found[1].id.as_str(), found[1].is_known), ("09090909", false));
    }

    #[test]
    fn what_is_over_or_soon_will_be_is_marked_and_the_rest_is_not() {
        let now = Timestamp::UNIX_EPOCH;
        let day = |count: i64| Some(now + SignedDuration::from_hours(24 * count));
        let marked = |end| standing(end, now);
        assert_eq!(marked(day(-3)).as_deref(), Some("EXPIRED 3 days ago"));
        assert_eq!(marked(day(44)).as_deref(), Some("ends in 44 days"));
        assert_eq!((marked(day(45)), marked(None)), (None, None));
    }

    #[test]
    fn what_is_no_signature_names_nobody() {
        for text in [
            "",
            "-----BEGIN PGP SIGNATURE-----\n",
            "-----BEGIN PGP SIGNATURE-----\n\nwsA=\n",
            "-----BEGIN PGP SIGNATURE-----\n\n!!\n",
        ] {
            assert!(signers(text, &[]).is_empty(), "{text}");
        }
    }
}
