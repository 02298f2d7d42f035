//! Tar as volumes use it: POSIX headers, regular files, nothing else. Pure: blocks in, headers out.
//!
//! A volume is read by every `tar`; ours reads nothing but volumes. What a header may say is a list of what is allowed: a name below
//! `blobs/sha256/` or `parts/sha256/`, the type of a regular file, a size. Links, folders, devices, extended headers and long names have
//! no meaning here and are refused by name, since each of them has been somebody's way out of a folder.

use kato_shared::Digest;

/// Bytes of a block: a header, and what content is filled up to.
pub const BLOCK: u64 = 512;

/// Bytes behind the last member: two blocks of zeros.
pub const END: u64 = 2 * BLOCK;

/// Where fields of a header stand (POSIX.1-1988, `ustar`).
const NAME: std::ops::Range<usize> = 0..100;
const MODE: std::ops::Range<usize> = 100..108;
const OWNER: std::ops::Range<usize> = 108..116;
const GROUP: std::ops::Range<usize> = 116..124;
const SIZE: std::ops::Range<usize> = 124..136;
const TIME: std::ops::Range<usize> = 136..148;
const SUM: std::ops::Range<usize> = 148..156;
const KIND: usize = 156;
const LINK: std::ops::Range<usize> = 157..257;
const MAGIC: std::ops::Range<usize> = 257..265;
const PREFIX: std::ops::Range<usize> = 345..500;

/// Above this a size does not fit eleven octal digits and is written in base 256, as GNU and bsdtar do.
const LARGEST_OCTAL: u64 = (1 << 33) - 1;

/// What a member is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Name {
    /// `blobs/sha256/<digest>`.
    Blob(Digest),
    /// `parts/sha256/<digest>/<number>`, from 1 on.
    Part(Digest, u16),
}

/// A header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The member.
    pub name: Name,
    /// Its size in bytes, as the header says: not to be believed before the signed table says so, too.
    pub size: u64,
}

/// Why a block is no header of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TarError {
    /// The sum over the header is another.
    #[error("a header is damaged: its sum is {found}, expected {expected}")]
    Sum {
        /// What the block sums up to.
        expected: u64,
        /// What it says.
        found: u64,
    },
    /// It is of another format.
    #[error("a header is of another format than ustar")]
    Format,
    /// It is no regular file.
    #[error("`{name}` is {kind}; only regular files are read")]
    Kind {
        /// Its name.
        name: String,
        /// What it is.
        kind: String,
    },
    /// Its name is not one of a bundle.
    #[error("the name `{0}` is not one of a bundle: expected blobs/sha256/… or parts/sha256/…")]
    Name(String),
    /// A field that cannot be read.
    #[error("the {field} of `{name}` cannot be read")]
    Field {
        /// Its name.
        name: String,
        /// Which.
        field: &'static str,
    },
}

impl Name {
    /// The path in a volume and in a folder.
    pub fn path(&self) -> String {
        match self {
            Self::Blob(digest) => format!("blobs/sha256/{}", digest.hex()),
            Self::Part(digest, number) => format!("parts/sha256/{}/{number:04}", digest.hex()),
        }
    }

    /// Reads a path, which must be written exactly as [`Name::path`] writes it.
    pub fn parse(path: &str) -> Option<Self> {
        let name = if let Some(hex) = path.strip_prefix("blobs/sha256/") {
            Self::Blob(hex.parse().ok()?)
        } else {
            let (hex, number) = path.strip_prefix("parts/sha256/")?.split_once('/')?;
            Self::Part(
                hex.parse().ok()?,
                number.parse().ok().filter(|number| *number > 0)?,
            )
        };
        (name.path() == path).then_some(name)
    }

    /// The blob that it is or belongs to.
    pub fn digest(&self) -> Digest {
        match self {
            Self::Blob(digest) | Self::Part(digest, _) => *digest,
        }
    }
}

/// What a member of `size` bytes takes in a volume.
pub const fn room(size: u64) -> u64 {
    BLOCK + size.div_ceil(BLOCK).saturating_mul(BLOCK)
}

/// What fills the last block of a member of `size` bytes.
pub const fn padding(size: u64) -> u64 {
    size.div_ceil(BLOCK) * BLOCK - size
}

impl Header {
    /// The block of this header: the same for the same member, whoever writes it and whenever.
    pub fn block(&self) -> [u8; 512] {
        let mut block = [0_u8; 512];
        let mut put = |field: std::ops::Range<usize>, text: &str| {
            block[field.start..field.start + text.len()].copy_from_slice(text.as_bytes());
        };
        put(NAME, &self.name.path());
        put(MODE, "0000644");
        put(OWNER, "0000000");
        put(GROUP, "0000000");
        put(TIME, "00000000000");
        put(MAGIC, "ustar\x0000");
        put(SUM, "        ");
        if self.size <= LARGEST_OCTAL {
            put(SIZE, &format!("{:011o}", self.size));
        } else {
            block[SIZE.start] = 0x80;
            block[SIZE.end - 8..SIZE.end].copy_from_slice(&self.size.to_be_bytes());
        }
        block[KIND] = b'0';
        let sum: u64 = block.iter().copied().map(u64::from).sum();
        block[SUM.start..SUM.start + 7].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        block
    }

    /// Reads a block; `None` for one of zeros, which ends a volume.
    ///
    /// # Errors
    /// [`TarError`] for whatever has no business in a volume.
    pub fn parse(block: &[u8; 512]) -> Result<Option<Self>, TarError> {
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let name = text(&block[NAME]).unwrap_or_else(|| String::from_utf8_lossy(&block[NAME]).into_owned());
        let field = |field| TarError::Field {
            name: name.clone(),
            field,
        };
        let found = octal(&block[SUM]).ok_or_else(|| field("sum"))?;
        let blank = u64::from(b' ') * SUM.len() as u64;
        let expected = blank
            + block
                .iter()
                .enumerate()
                .filter(|(at, _)| !SUM.contains(at))
                .map(|(_, byte)| u64::from(*byte))
                .sum::<u64>();
        if found != expected {
            return Err(TarError::Sum { expected, found });
        }
        if !block[MAGIC].starts_with(b"ustar") {
            return Err(TarError::Format);
        }
        let has_link = block[LINK].iter().any(|byte| *byte != 0);
        if block[KIND] != b'0' || has_link {
            return Err(TarError::Kind {
                kind: kind(block[KIND], has_link),
                name,
            });
        }
        if block[PREFIX].iter().any(|byte| *byte != 0) {
            let prefix = String::from_utf8_lossy(&block[PREFIX]);
            return Err(TarError::Name(format!(
                "{}/{name}",
                prefix.trim_end_matches('\0')
            )));
        }
        let size = size(&block[SIZE]).ok_or_else(|| field("size"))?;
        let name = text(&block[NAME])
            .and_then(|path| Name::parse(&path))
            .ok_or(TarError::Name(name))?;
        Ok(Some(Self { name, size }))
    }
}

fn kind(kind: u8, has_link: bool) -> String {
    match kind {
        b'1' => "a hard link",
        b'2' => "a symbolic link",
        b'3' | b'4' => "a device",
        b'5' => "a folder",
        b'6' => "a pipe",
        b'x' | b'g' => "an extended header",
        b'L' | b'K' => "a long name",
        b'S' => "a sparse file",
        b'0' if has_link => "a link",
        other => return format!("of the unknown type {other:#04x}"),
    }
    .to_owned()
}

/// Text up to the first zero, behind which there are only zeros.
fn text(field: &[u8]) -> Option<String> {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    let (text, rest) = field.split_at(end);
    (rest.iter().all(|byte| *byte == 0)).then(|| String::from_utf8(text.to_vec()).ok())?
}

fn octal(field: &[u8]) -> Option<u64> {
    let digits = field.iter().copied().take_while(|byte| !matches!(byte, 0 | b' '));
    let text: String = digits.map(char::from).collect();
    if text.is_empty() || !text.bytes().all(|digit| (b'0'..=b'7').contains(&digit)) {
        return None;
    }
    u64::from_str_radix(&text, 8).ok()
}

fn size(field: &[u8]) -> Option<u64> {
    let (first, rest) = field.split_first()?;
    if *first != 0x80 {
        return octal(field);
    }
    let (high, low) = rest.split_at(3);
    let low = <[u8; 8]>::try_from(low).ok()?;
    (high == [0; 3]).then(|| u64::from_be_bytes(low))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(size: u64) -> Header {
        Header {
            name: Name::Blob(Digest::of(b"content")),
            size,
        }
    }

    /// `block` with another sum.
    fn summed(mut block: [u8; 512]) -> [u8; 512] {
        block[SUM].copy_from_slice(b"        ");
        let sum: u64 = block.iter().copied().map(u64::from).sum();
        block[SUM.start..SUM.start + 7].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        block
    }

    fn named(name: &[u8]) -> [u8; 512] {
        let mut block = header(1).block();
        block[NAME].fill(0);
        block[..name.len()].copy_from_slice(name);
        summed(block)
    }

    #[test]
    fn headers_read_back_also_above_eight_gibibytes() {
        for size in [0, 1, 512, LARGEST_OCTAL, LARGEST_OCTAL + 1, 25_025_314_816] {
            assert_eq!(Header::parse(&header(size).block()), Ok(Some(header(size))));
        }
        let part = Header {
            name: Name::Part(Digest::of(b"content"), 12),
            size: 7,
        };
        assert_eq!(Header::parse(&part.block()), Ok(Some(part)));
        assert_eq!(Header::parse(&[0; 512]), Ok(None));
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let hex = Digest::of(b"content").hex();
        for name in [
            "../../etc/passwd".to_owned(),
            "/etc/passwd".to_owned(),
            format!("blobs/sha256/../{hex}"),
            format!("./blobs/sha256/{hex}"),
            format!("blobs/sha256/{}", hex.to_uppercase()),
            format!("blobs/sha256/sha256:{hex}"),
            format!("parts/sha256/{hex}/0000"),
            format!("parts/sha256/{hex}/1"),
            format!("blobs/sha256/{hex}/"),
            "BUNDLE.json".to_owned(),
        ] {
            let refused = Header::parse(&named(name.as_bytes()));
            assert_eq!(refused, Err(TarError::Name(name.clone())), "{name}");
        }
        assert!(matches!(
            Header::parse(&named(b"blobs/\0x")),
            Err(TarError::Name(_))
        ));
    }

    #[test]
    fn links_devices_and_extended_headers_are_refused_by_name() {
        for (kind, said) in [
            (b'1', "hard link"),
            (b'2', "symbolic link"),
            (b'3', "device"),
            (b'5', "folder"),
            (b'x', "extended header"),
            (b'L', "long name"),
            (b'S', "sparse"),
            (b'7', "unknown type"),
        ] {
            let mut block = header(1).block();
            block[KIND] = kind;
            let refused = Header::parse(&summed(block)).unwrap_err().to_string();
            assert!(refused.contains(said), "{refused}");
        }
        let mut block = header(1).block();
        block[LINK.start] = b'/';
        assert!(matches!(
            Header::parse(&summed(block)),
            Err(TarError::Kind { .. })
        ));
        let mut block = header(1).block();
        block[PREFIX.start] = b'/';
        assert!(matches!(Header::parse(&summed(block)), Err(TarError::Name(_))));
    }

    proptest! {
        #[test]
        fn any_block_is_judged_and_a_flipped_bit_never_gives_another_member(bytes: Vec<u8>, at in 0_usize..512, bit in 0_u8..8) {
            let mut block = [0; 512];
            let length = bytes.len().min(512);
            block[..length].copy_from_slice(&bytes[..length]);
            let _judged = Header::parse(&block);
            let mut flipped = header(77).block();
            flipped[at] ^= 1 << bit;
            if let Ok(Some(read)) = Header::parse(&flipped) {
                prop_assert_eq!(read, header(77));
            }
        }
    }
}
