//! Documents as they lie on mirrors, unpacked as they are read: what they are packed with is told by their first bytes, since a name
//! such as `by-hash/SHA256/…` does not tell.
//!
//! Invariant: no more than [`EXPANSION_LIMIT`] bytes come out, whatever goes in.

use std::io::{self, BufRead, BufReader, Read};

/// The most bytes that come out of one document. The largest index of Debian has some 60 MB unpacked.
pub const EXPANSION_LIMIT: u64 = 1 << 30;

/// Bytes that are read at once.
const BUFFER: usize = 64 << 10;

/// `content`, unpacked.
///
/// # Errors
/// When its first bytes cannot be read. Later: when it is damaged, and with [`io::ErrorKind::FileTooLarge`] beyond the limit.
pub fn unpack<'d>(content: impl Read + Send + 'd) -> io::Result<Box<dyn BufRead + Send + 'd>> {
    let mut packed = BufReader::with_capacity(BUFFER, content);
    let magic = packed.fill_buf()?;
    let plain: Box<dyn Read + Send + 'd> = match magic {
        [0x1F, 0x8B, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(packed)),
        [0xFD, b'7', b'z', b'X', b'Z', 0, ..] => Box::new(lzma_rust2::XzReader::new(packed, true)),
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => Box::new(bzip2::bufread::MultiBzDecoder::new(packed)),
        [0x28, 0xB5, 0x2F, 0xFD, ..] => Box::new(zstd::Decoder::with_buffer(packed)?),
        [0x04, 0x22, 0x4D, 0x18, ..] => Box::new(lz4_flex::frame::FrameDecoder::new(packed)),
        _ => Box::new(packed),
    };
    let bounded = Bounded {
        inner: plain,
        left: EXPANSION_LIMIT,
    };
    Ok(Box::new(BufReader::with_capacity(BUFFER, bounded)))
}

/// A reader that fails beyond its bound, where [`Read::take`] would end as if all were said.
struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(count as u64).ok_or_else(|| {
            let said = format!("more than {EXPANSION_LIMIT} bytes unpacked");
            io::Error::new(io::ErrorKind::FileTooLarge, said)
        })?;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn unpacked(packed: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        unpack(packed).unwrap().read_to_end(&mut plain).unwrap();
        plain
    }

    #[test]
    fn each_format_is_known_by_its_first_bytes() {
        let plain = b"Package: hello\nFilename: pool/hello.deb\n".repeat(5_000);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&plain).unwrap();
        let mut xz = lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::default()).unwrap();
        xz.write_all(&plain).unwrap();
        let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
        lz4.write_all(&plain).unwrap();
        let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        bzip2.write_all(&plain).unwrap();
        for packed in [
            plain.clone(),
            bzip2.finish().unwrap(),
            gzip.finish().unwrap(),
            xz.finish().unwrap(),
            lz4.finish().unwrap(),
            zstd::encode_all(plain.as_slice(), 1).unwrap(),
        ] {
            assert!(unpacked(&packed) == plain, "{:x?}", &packed[..4]);
        }
        assert!(unpacked(b"").is_empty());
    }

    #[test]
    fn what_expands_beyond_the_limit_is_an_error_and_not_an_end() {
        let mut bomb = Bounded {
            inner: io::repeat(b' '),
            left: 100_000,
        };
        let error = io::copy(&mut bomb, &mut io::sink()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn what_is_torn_is_an_error_and_not_an_end() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&b"some text ".repeat(1_000)).unwrap();
        let whole = gzip.finish().unwrap();
        let mut torn = unpack(&whole[..whole.len() - 12]).unwrap();
        assert!(io::copy(&mut torn, &mut io::sink()).is_err());
    }
}
