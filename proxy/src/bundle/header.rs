//! `BUNDLE.json`: the one document that is signed, byte by byte as it stands. It holds the digests of the tables, and these hold the
//! digest of every other byte.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kato_shared::Digest;
use serde::{Deserialize, Serialize};

use super::{
    importer::{self, TooOld},
    pack::MOST_VOLUMES,
    tar::Name,
};
use crate::{
    archive_keys::SigningKey,
    snapshot::{LeftOut, Record},
};

/// What the `format` of a bundle is.
pub const FORMAT: &str = "kato/bundle/1";

/// The largest `BUNDLE.json` in bytes.
pub const LARGEST_HEADER: u64 = 1 << 20;

/// The largest sequence number: each JSON reader has it exactly (RFC 8259, section 6), and one more can follow.
pub const LARGEST_SEQ: u64 = (1 << 53) - 2;

/// The largest table in bytes: ten million members.
pub const LARGEST_TABLE: u64 = 2 << 30;

/// What a bundle is relative to what the site has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Everything that its root names.
    Full,
    /// Without what earlier bundles brought.
    Delta,
    /// What a request file asked for.
    Satisfy,
}

/// `BUNDLE.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// [`FORMAT`].
    pub format: String,
    /// The oldest version of this program that may take it in; any when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub importer_min: Option<String>,
    /// The series, a name.
    pub series: String,
    /// Which series of that name.
    pub series_id: String,
    /// The place in the series, from 1 on.
    pub seq: u64,
    /// When the snapshot was taken.
    pub created: Timestamp,
    /// The root of the whole snapshot, whatever of it is here.
    pub root: Digest,
    /// What is here of it.
    pub kind: Kind,
    /// What the rest is in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub base: Vec<Base>,
    /// The digest of `SHA256SUMS`.
    pub sums: Digest,
    /// The digest of `MEMBERS.jsonl`.
    pub members: Digest,
    /// The digest of `index.json`.
    pub index_json: Digest,
    /// The volumes, none in the form of a folder.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
    /// How much there is of what.
    pub counts: Counts,
    /// The same in bytes.
    pub bytes: Bytes,
    /// Bytes that an import takes at most.
    pub need_free: u64,
    /// Whether what is carried is complete.
    pub closure: Proof,
    /// Whether clients were seen to be content with it.
    pub rehearsal: Proof,
    /// Responses that were left out, by reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub left_out: BTreeMap<LeftOut, u64>,
    /// What expires, and when.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub horizon: Vec<Horizon>,
}

/// A snapshot that the site is taken to have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// Its place in the series.
    pub seq: u64,
    /// Its root.
    pub root: Digest,
}

/// A tar.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Its number, from 1 on.
    pub n: u32,
    /// The name of its file.
    pub file: String,
    /// Its bytes.
    pub size: u64,
    /// Their digest.
    pub sha256: Digest,
}

/// How much there is of what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Responses of the snapshot.
    pub entries: u64,
    /// Contents of the snapshot.
    pub blobs_root: u64,
    /// Contents that are here.
    pub blobs_here: u64,
}

/// How many bytes that is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bytes {
    /// Contents of the snapshot.
    pub root: u64,
    /// Contents that are here.
    pub here: u64,
}

/// Whether something was shown, and who decided that it need not be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// Whether it was shown.
    pub ok: bool,
    /// What was declared, or run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub declared: Vec<String>,
    /// Why it is not demanded, as the operator said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waived: Vec<String>,
}

/// Something that expires.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Horizon {
    /// What, e.g. `http://deb.example/debian bookworm-security`.
    pub what: String,
    /// When it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub date: Option<Timestamp>,
    /// Until when clients accept it; nothing says none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_until: Option<Timestamp>,
    /// The keys that have signed it, and until when they are good.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<SigningKey>,
}

/// What a member is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Content of responses.
    Payload,
    /// The root or a chunk of the snapshot.
    Snapshot,
    /// A manifest, so that other programs find everything.
    Oci,
}

/// A line of `MEMBERS.jsonl`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Its path.
    pub path: String,
    /// Its bytes.
    pub size: u64,
    /// Their digest, which for a part is not in its name.
    pub sha256: Digest,
    /// In which volume it is; 0 beside `BUNDLE.json`.
    pub volume: u32,
    /// What it is for.
    pub role: Role,
}

/// Why a document is none of a bundle.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    /// Not the JSON that it should be.
    #[error("{file} cannot be read")]
    Syntax {
        /// The file.
        file: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A newer program wrote it.
    #[error("the bundle has the format `{0}`, expected `{FORMAT}`\nhint: import it with a newer kato-proxy")]
    Format(String),
    /// It needs a newer program.
    #[error(transparent)]
    Importer(#[from] TooOld),
    /// A value that must not be.
    #[error("BUNDLE.json: {0}")]
    Value(String),
    /// A member that must not be.
    #[error("MEMBERS.jsonl: {0}")]
    Member(String),
}

/// The members of a bundle, by name.
pub type Table = BTreeMap<Name, Member>;

impl Header {
    /// The place of the bundle in its series.
    pub fn record(&self) -> Record {
        Record {
            series: self.series.clone(),
            series_id: self.series_id.clone(),
            seq: self.seq,
            root: self.root,
            created: self.created,
        }
    }

    /// Reads the bytes of `BUNDLE.json`, whose signature was verified.
    ///
    /// # Errors
    /// [`HeaderError`].
    pub fn read(bytes: &[u8]) -> Result<Self, HeaderError> {
        let header: Self = serde_json::from_slice(bytes).map_err(|source| HeaderError::Syntax {
            file: "BUNDLE.json",
            source,
        })?;
        if header.format != FORMAT {
            return Err(HeaderError::Format(header.format));
        }
        if let Some(needed) = &header.importer_min {
            importer::check(needed)?;
        }
        header.check().map_err(HeaderError::Value)?;
        Ok(header)
    }

    fn check(&self) -> Result<(), String> {
        if !is_series(&self.series) || !is_series(&self.series_id) {
            return Err(format!("`{}` is no name of a series", self.series));
        }
        if !(1..=LARGEST_SEQ).contains(&self.seq) {
            return Err(format!(
                "the sequence number is {}, expected 1 to {LARGEST_SEQ}",
                self.seq
            ));
        }
        if self.volumes.len() > MOST_VOLUMES {
            return Err(format!(
                "{} volumes, at most {MOST_VOLUMES} are read",
                self.volumes.len()
            ));
        }
        for (volume, n) in self.volumes.iter().zip(1_u32..) {
            if volume.n != n || !is_file_name(&volume.file) {
                return Err(format!(
                    "volume {n} is called `{}` and has number {}",
                    volume.file, volume.n
                ));
            }
        }
        Ok(())
    }

    /// The name of the bundle, e.g. `prod-000042`.
    pub fn name(&self) -> String {
        name(&self.series, self.seq)
    }
}

/// The name of bundle `seq` of `series`.
pub fn name(series: &str, seq: u64) -> String {
    format!("{series}-{seq:06}")
}

/// Whether `text` may be the name of a series: it becomes part of file names.
pub fn is_series(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
    (1..=40).contains(&text.len()) && text.bytes().all(is_plain) && text.as_bytes()[0].is_ascii_alphanumeric()
}

fn is_file_name(text: &str) -> bool {
    text.len() <= 64
        && text.strip_suffix(".tar").is_some_and(|stem| {
            let plain =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
            !stem.is_empty() && stem.bytes().all(plain) && !stem.starts_with('.')
        })
}

/// Reads `MEMBERS.jsonl` of a bundle with `volumes` volumes.
///
/// # Errors
/// [`HeaderError`] also for a name that stands there twice, or in a volume that there is not.
pub fn read_table(bytes: &[u8], volumes: usize) -> Result<Table, HeaderError> {
    let mut table = Table::new();
    for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let member: Member = serde_json::from_slice(line).map_err(|source| HeaderError::Syntax {
            file: "MEMBERS.jsonl",
            source,
        })?;
        let name = Name::parse(&member.path)
            .ok_or_else(|| HeaderError::Member(format!("`{}` is no name of a member", member.path)))?;
        if usize::try_from(member.volume).is_ok_and(|volume| volume > volumes) {
            return Err(HeaderError::Member(format!(
                "`{}` is in volume {}, there are {volumes}",
                member.path, member.volume
            )));
        }
        if matches!(name, Name::Blob(digest) if digest != member.sha256) {
            return Err(HeaderError::Member(format!(
                "`{}` has another digest than its name",
                member.path
            )));
        }
        if matches!(name, Name::Part(..)) && member.role != Role::Payload {
            return Err(HeaderError::Member(format!(
                "`{}` is a part of no payload",
                member.path
            )));
        }
        if let Some(other) = table.insert(name, member) {
            return Err(HeaderError::Member(format!(
                "`{}` stands there twice",
                other.path
            )));
        }
    }
    Ok(table)
}

/// Writes `MEMBERS.jsonl`.
///
/// # Errors
/// None that is known: names, numbers and digests can be written.
pub fn write_table(table: &Table) -> serde_json::Result<Vec<u8>> {
    let mut text = Vec::new();
    for member in table.values() {
        serde_json::to_writer(&mut text, member)?;
        text.push(b'\n');
    }
    Ok(text)
}
