//! What a document teaches: URLs, and what is known about their content before it is fetched.

use std::io;

use kato_shared::Digest;
use serde::{Deserialize, Serialize};
use url::Url;

use super::Integrity;
use crate::settings::Upstream;

/// The most lessons of one document. The largest index of a distribution names some 100,000 packages.
pub const MOST_LESSONS: usize = 1_000_000;

/// What is known about content before it is fetched. This is its written form in the store, too: fields that later versions add
/// must have a serde default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// The digest of the content, without any content coding.
    #[serde(rename = "digest")]
    pub integrity: Integrity,
    /// How many bytes it has, where the document says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
}

impl Known {
    /// Content with this SHA-256.
    pub const fn sha256(digest: Digest, size: Option<u64>) -> Self {
        Self {
            integrity: Integrity::Sha256(digest),
            size,
        }
    }

    /// The digest by which the store knows the content; `None` where another is promised.
    pub const fn digest(&self) -> Option<Digest> {
        self.integrity.sha256()
    }
}

/// One URL and what is known about its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lesson {
    /// Absolute, at the first base URL of its upstream, as in cache keys.
    pub url: Url,
    /// What is known.
    pub known: Known,
}

/// A document as its lessons see it.
#[derive(Debug, Clone, Copy)]
pub struct Document<'d> {
    /// Where it came from.
    pub upstream: &'d Upstream,
    /// Its absolute URL, as in its cache key.
    pub url: &'d Url,
    /// Its path below the base URL.
    pub path: &'d str,
}

/// The lessons of one document, read as they are asked for. After an error nothing that was said before counts.
pub type Lessons<'d> = Box<dyn Iterator<Item = Result<Lesson, LessonError>> + 'd>;

/// Why a document teaches nothing.
#[derive(Debug, thiserror::Error)]
pub enum LessonError {
    /// Its bytes cannot be read or unpacked.
    #[error("the document cannot be read")]
    Read(#[source] io::Error),
    /// It is in no form that is understood.
    #[error("the document is damaged: expected {expected}")]
    Damaged {
        /// What should have been there.
        expected: &'static str,
    },
    /// It says more than one document may.
    #[error("the document teaches more than {most} URLs")]
    TooMany {
        /// The most that is taken in.
        most: usize,
    },
}
