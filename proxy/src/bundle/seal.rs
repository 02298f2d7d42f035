//! What is signed: the documents of a bundle's head and its header, from a plan and the table of its payloads. Pure, and the same for
//! the same plan, so that an export knows whether the bundle that lies there is the one that it would write.

use std::{collections::BTreeMap, io};

use kato_shared::Digest;

use super::{
    header::{Bytes, Counts, FORMAT, Header, Member, Proof, Role, Table, Volume, write_table},
    oci,
    pack::Piece,
    plan::Plan,
    readme::readme,
    tar::Name,
};
use crate::snapshot::Record;

/// The documents of a head.
#[derive(Debug)]
pub(super) struct Sealed {
    /// `BUNDLE.json`.
    pub(super) header: Header,
    /// The manifests of the image layout.
    pub(super) blobs: BTreeMap<Digest, Vec<u8>>,
    /// The other files, by their names.
    pub(super) documents: Vec<(&'static str, Vec<u8>)>,
}

impl Sealed {
    /// What is signed of the bundle `record` that carries what `plan` says, was shown to be `complete`, and has `volumes`, and the payloads
    /// and documents in `table`.
    pub(super) fn new(
        (plan, record): (&Plan, &Record),
        complete: (&Proof, &Proof),
        volumes: Vec<Volume>,
        mut table: Table,
    ) -> io::Result<Self> {
        let layout = oci::layout(&plan.snapshot, &table);
        for (digest, bytes) in &layout.blobs {
            let name = Name::Blob(*digest);
            table.entry(name).or_insert_with(|| Member {
                path: name.path(),
                size: bytes.len() as u64,
                sha256: *digest,
                volume: 0,
                role: Role::Oci,
            });
        }
        let members = write_table(&table)?;
        let mut header = header((plan, record), complete, volumes);
        header.members = Digest::of(&members);
        header.index_json = Digest::of(&layout.index);
        let readme = readme(&header).into_bytes();
        let mut documents = vec![
            ("MEMBERS.jsonl", members),
            ("README.txt", readme),
            ("index.json", layout.index),
            ("oci-layout", oci::LAYOUT.to_vec()),
        ];
        let sums = sums(&documents, &table).into_bytes();
        header.sums = Digest::of(&sums);
        documents.push(("SHA256SUMS", sums));
        Ok(Self {
            header,
            blobs: layout.blobs,
            documents,
        })
    }

    /// The bytes of `BUNDLE.json`.
    pub(super) fn text(&self) -> io::Result<Vec<u8>> {
        let mut text = serde_json::to_vec_pretty(&self.header)?;
        text.push(b'\n');
        Ok(text)
    }
}

/// Puts `piece`, which lies in volume `n` and has the digest `sha256`, into `table`.
pub(super) fn insert(table: &mut Table, piece: &Piece, n: u32, sha256: Digest) {
    let member = Member {
        path: piece.name.path(),
        size: piece.size,
        sha256,
        volume: n,
        role: Role::Payload,
    };
    table.insert(piece.name, member);
}

fn header(
    (plan, record): (&Plan, &Record),
    (closure, rehearsal): (&Proof, &Proof),
    volumes: Vec<Volume>,
) -> Header {
    let contents = plan.snapshot.contents();
    let here: u64 = plan.blobs.iter().map(|blob| blob.size).sum();
    let largest_part = plan
        .volumes
        .iter()
        .flatten()
        .filter(|piece| matches!(piece.name, Name::Part(..)));
    Header {
        format: FORMAT.to_owned(),
        series: record.series.clone(),
        series_id: record.series_id.clone(),
        seq: record.seq,
        created: record.created,
        root: record.root,
        kind: plan.kind,
        base: plan.base.clone(),
        sums: Digest::of(b""),
        members: Digest::of(b""),
        index_json: Digest::of(b""),
        volumes,
        counts: Counts {
            entries: plan.snapshot.entries().len() as u64,
            blobs_root: contents.len() as u64,
            blobs_here: plan.blobs.len() as u64,
        },
        bytes: Bytes {
            root: contents.values().sum(),
            here,
        },
        need_free: here + largest_part.map(|piece| piece.size).max().unwrap_or_default(),
        closure: closure.clone(),
        rehearsal: rehearsal.clone(),
        left_out: plan.left_out.clone(),
        horizon: plan.horizon.clone(),
    }
}

/// `SHA256SUMS`: every file but `BUNDLE.json` and its signature, once all volumes are unpacked and parts joined.
fn sums(documents: &[(&str, Vec<u8>)], table: &Table) -> String {
    let mut lines: Vec<String> = documents
        .iter()
        .map(|(name, bytes)| format!("{}  {name}\n", Digest::of(bytes).hex()))
        .collect();
    let mut blobs: Vec<Digest> = table.keys().map(Name::digest).collect();
    blobs.dedup();
    blobs.sort();
    blobs.dedup();
    lines.extend(
        blobs
            .iter()
            .map(|digest| format!("{}  blobs/sha256/{}\n", digest.hex(), digest.hex())),
    );
    lines.concat()
}
