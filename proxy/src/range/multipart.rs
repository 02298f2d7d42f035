//! The layout of a `multipart/byteranges` body ([RFC 9110 §14.6]): framing text and ranges of content, in order.
//!
//! Pure: the sender writes each [`Segment`] and reads content where told. The length is known beforehand, so that the answer
//! needs no chunked coding.
//!
//! [RFC 9110 §14.6]: https://www.rfc-editor.org/rfc/rfc9110#section-14.6

use http::HeaderValue;

use super::ByteRange;

/// One piece of the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// Framing, to be sent as it is.
    Text(String),
    /// Bytes of the representation.
    Content(ByteRange),
}

/// A whole body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    boundary: String,
    segments: Vec<Segment>,
}

impl Layout {
    /// Lays out `parts` of a representation of `complete` bytes.
    ///
    /// `nonce` makes the boundary; it should be random, so that content cannot be made to contain it. `content_type`
    /// is the representation's.
    pub fn new(parts: &[ByteRange], complete: u64, content_type: Option<&HeaderValue>, nonce: u128) -> Self {
        let boundary = format!("kato-{nonce:032x}");
        let content_type = content_type
            .and_then(|value| value.to_str().ok())
            .map(|value| format!("Content-Type: {value}\r\n"))
            .unwrap_or_default();
        let mut segments = Vec::with_capacity(parts.len() * 2 + 1);
        for (index, part) in parts.iter().enumerate() {
            let lead = if index == 0 { "" } else { "\r\n" };
            segments.push(Segment::Text(format!(
                "{lead}--{boundary}\r\n{content_type}Content-Range: bytes {part}/{complete}\r\n\r\n"
            )));
            segments.push(Segment::Content(*part));
        }
        segments.push(Segment::Text(format!("\r\n--{boundary}--\r\n")));
        Self { boundary, segments }
    }

    /// The pieces, in the order of sending.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The `Content-Type` of the 206. "A server MUST NOT generate Content-Range in the header section" of it (§15.3.7.2).
    pub fn content_type(&self) -> HeaderValue {
        HeaderValue::from_str(&format!("multipart/byteranges; boundary={}", self.boundary))
            .unwrap_or_else(|_| HeaderValue::from_static("multipart/byteranges"))
    }

    /// The `Content-Length` of the 206.
    pub fn content_length(&self) -> u64 {
        self.segments
            .iter()
            .map(|segment| match segment {
                Segment::Text(text) => text.len() as u64,
                Segment::Content(range) => range.size(),
            })
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc9110_s14_6_the_layout_is_the_one_of_the_example() {
        let parts = [
            ByteRange::new(500, 999).unwrap(),
            ByteRange::new(7000, 7999).unwrap(),
        ];
        let pdf = HeaderValue::from_static("application/pdf");
        let layout = Layout::new(&parts, 8000, Some(&pdf), 7);
        let boundary = "kato-00000000000000000000000000000007";
        let head = |range: &str| {
            format!(
                "--{boundary}\r\nContent-Type: application/pdf\r\nContent-Range: bytes {range}/8000\r\n\r\n"
            )
        };
        assert_eq!(
            layout.segments(),
            [
                Segment::Text(head("500-999")),
                Segment::Content(parts[0]),
                Segment::Text(format!("\r\n{}", head("7000-7999"))),
                Segment::Content(parts[1]),
                Segment::Text(format!("\r\n--{boundary}--\r\n")),
            ]
        );
        assert_eq!(
            layout.content_type(),
            format!("multipart/byteranges; boundary={boundary}")
        );
        let text: usize = head("500-999").len() + head("7000-7999").len() + 2 + boundary.len() + 8;
        assert_eq!(layout.content_length(), 1500 + text as u64);
    }
}
