//! What identifies a piece of content: media type, digest and size (OCI image-spec, content descriptors).

use serde::{Deserialize, Serialize};

use crate::Digest;

/// An OCI content descriptor without the optional fields that we do not use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// The media type of the content, e.g. `application/octet-stream`.
    pub media_type: String,
    /// The digest of the content.
    pub digest: Digest,
    /// The size of the content in bytes.
    pub size: u64,
}
