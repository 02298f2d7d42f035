//! Whether a detached signature (`Release.gpg`) is about a document, as far as that can be told without any key: a signature of `OpenPGP` shows
//! the first two octets of the digest that it signs ([RFC 9580 §5.2.3]).
//!
//! This is no check of a signature, which is apt's: it tells signatures of two generations apart, all but one time in 65 536.
//!
//! [RFC 9580 §5.2.3]: https://www.rfc-editor.org/rfc/rfc9580#section-5.2.3

use base64::{Engine, engine::general_purpose::STANDARD};
use kato_shared::digest::{Hasher, OtherHasher};

/// Signatures are tag 2 (RFC 9580 §5).
const SIGNATURE: u8 = 2;

/// Whether every signature in `file` that can be told about is one of `document`; `None` where none can be.
pub(crate) fn is_about(file: &[u8], document: &[u8]) -> Option<bool> {
    let unarmored = unarmored(file);
    let mut rest = unarmored.as_deref().unwrap_or(file);
    let mut verdict = None;
    while let Some((tag, body, behind)) = packet(rest) {
        if tag == SIGNATURE
            && let Some(fits) = fits(body, document)
        {
            verdict = Some(verdict.unwrap_or(true) && fits);
        }
        rest = behind;
    }
    verdict
}

/// What stands between the lines of an armor (RFC 9580 §6.2); `None` where there is none.
fn unarmored(file: &[u8]) -> Option<Vec<u8>> {
    let text = str::from_utf8(file).ok()?;
    let (_, inside) = text.split_once("-----BEGIN PGP SIGNATURE-----")?;
    let (inside, _) = inside.split_once("-----END PGP SIGNATURE-----")?;
    // Headers, an empty line, the data, and perhaps a checksum behind `=`.
    let lines = inside.lines().skip(1).skip_while(|line| !line.trim().is_empty());
    let data: String = lines
        .map(str::trim)
        .take_while(|line| !line.starts_with('='))
        .collect();
    STANDARD.decode(data).ok()
}

/// The first packet: its tag, its content, and what follows. `None` at the end, and for forms that signatures do not have.
fn packet(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&first, rest) = bytes.split_first()?;
    let number = |octets: &[u8]| {
        octets
            .iter()
            .fold(0_usize, |sum, octet| sum << 8 | usize::from(*octet))
    };
    let (tag, width, length) = match (first & 0xC0, rest) {
        (0xC0, [length @ 0..=191, ..]) => (first & 0x3F, 1, usize::from(*length)),
        (0xC0, [high @ 192..=223, low, ..]) => (
            first & 0x3F,
            2,
            ((usize::from(*high) - 192) << 8) + usize::from(*low) + 192,
        ),
        (0xC0, [255, octets @ ..]) => (first & 0x3F, 5, number(octets.get(..4)?)),
        (0x80, _) if first & 3 < 3 => {
            let width = 1 << (first & 3);
            (first >> 2 & 0x0F, width, number(rest.get(..width)?))
        }
        _ => return None,
    };
    let body = rest.get(width..)?;
    Some((tag, body.get(..length)?, body.get(length..)?))
}

/// Whether the signature packet `body` shows the digest of `document`; `None` for versions and functions that are not known here.
fn fits(body: &[u8], document: &[u8]) -> Option<bool> {
    // "Version 4 … signature type … public-key algorithm … hash algorithm … two-octet … count for … hashed subpacket data".
    let [4, kind, _, function, high, low, ..] = *body else {
        return None;
    };
    let hashed = body.get(..6 + (usize::from(high) << 8 | usize::from(low)))?;
    let behind = body.get(hashed.len()..)?;
    let [high, low, ..] = *behind else { return None };
    let shown = behind
        .get(2 + (usize::from(high) << 8 | usize::from(low))..)?
        .get(..2)?;
    // "The trailer … 0x04 … 0xFF … a four-octet … length of the hashed data".
    let length = u32::try_from(hashed.len()).ok()?.to_be_bytes();
    let trailer = [&[4, 0xFF][..], &length].concat();
    let parts = [&*as_signed(kind, document)?, hashed, &trailer];
    Some(digest(function, parts)?.get(..2)? == shown)
}

/// The bytes that a signature of this type is over: as they are, or with the line endings of the network.
fn as_signed(kind: u8, document: &[u8]) -> Option<std::borrow::Cow<'_, [u8]>> {
    match kind {
        0 => Some(document.into()),
        1 => {
            let lines: Vec<&[u8]> = document
                .split(|byte| *byte == b'\n')
                .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
                .collect();
            Some(lines.join(&b"\r\n"[..]).into())
        }
        _ => None,
    }
}

/// By the functions of RFC 9580 §9.5 with which archives are signed.
fn digest(function: u8, parts: [&[u8]; 3]) -> Option<Vec<u8>> {
    let mut other = match function {
        2 => OtherHasher::sha1(),
        8 => {
            let mut hasher = Hasher::new();
            for part in parts {
                hasher.update(part);
            }
            return Some(hasher.finish().as_bytes().to_vec());
        }
        9 => OtherHasher::sha384(),
        10 => OtherHasher::sha512(),
        _ => return None,
    };
    for part in parts {
        other.update(part);
    }
    Some(other.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &[u8] = b"Origin: Lab\nSuite: stable\n";

    /// Made with gpg 2.2 by keys that nobody has any more, with SHA-256, SHA-512 and SHA-384.
    const SIGNED: [&str; 3] = [
        "iHUEABYIAB0WIQTC6vFeLmVB0HytqeVGzZ/GDD6A/gUCawMzCgAKCRBGzZ/GDD6A\n/tXyAQDeGeO6K+b32j1H3eIVx+bLRrovrpMg1VtPv8XYpIV7tgD/XkFwzU0HS7xi\nJSP+yC+IesuL6+1Oqu3u2lNROjOEpww=\n=Phwa\n",
        "iHUEABYKAB0WIQTC6vFeLmVB0HytqeVGzZ/GDD6A/gUCawMzCgAKCRBGzZ/GDD6A\n/vY4AQD1FIkpGLr7oUqh4DJVCymgbfNomWGJs4ppHamjyOnaPwD/bhQykveZI717\nemEU1FwuS80+5qRC/7yFAnppi8zoBgQ=\n=/XLE\n",
        "iHUEABYJAB0WIQTC6vFeLmVB0HytqeVGzZ/GDD6A/gUCawMzCgAKCRBGzZ/GDD6A\n/oWzAP4g6djS6hqUW8eb3p6qBbkgZo/a1DJz0di5QM2rXEQ5lwEAyG47/0qJjttj\n95Jq8OVZQt1C2CEizuGxbpuJ7/woXAQ=\n=7NL9\n",
    ];

    fn armored(data: &str) -> String {
        format!("-----BEGIN PGP SIGNATURE-----\nComment: a lab\n\n{data}-----END PGP SIGNATURE-----\n")
    }

    #[test]
    fn signatures_of_a_document_are_told_from_those_of_another() {
        for data in SIGNED {
            let armored = armored(data);
            let bare = unarmored(armored.as_bytes()).unwrap();
            for file in [armored.as_bytes(), &bare] {
                assert_eq!(is_about(file, DOCUMENT), Some(true));
                assert_eq!(is_about(file, b"Origin: Lab\nSuite: testing\n"), Some(false));
            }
        }
        // As archives with two keys have it: both must fit.
        let all: Vec<u8> = SIGNED
            .iter()
            .flat_map(|data| unarmored(armored(data).as_bytes()).unwrap())
            .collect();
        assert_eq!(is_about(&all, DOCUMENT), Some(true));
    }

    #[test]
    fn what_is_no_signature_says_nothing() {
        for file in [
            &b""[..],
            b"signature",
            b"\xC2",
            b"\xC2\x05\x04\x00",
            b"\x88\xFF",
            b"-----BEGIN PGP SIGNATURE-----",
        ] {
            assert_eq!(is_about(file, DOCUMENT), None, "{file:?}");
        }
    }
}
