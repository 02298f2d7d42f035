//! An export that is run again: what earlier runs have left in the folder of bundles.
//!
//! Three cases: a run was interrupted and is gone on with ([`begun`]); a run was killed between giving the folder its name and telling the
//! ledger, which is made up for ([`adopt`]); nothing has changed since the last bundle, which then is the result (`Export::same`).
//!
//! A bundle is the same when all that we would sign is the same but for the moment: members, volumes, base, proofs, what was left out;
//! when our key has signed it; and when its files are there with their sizes. Payloads are not read for that: `bundle verify` does.

use std::{fs, path::Path};

use jiff::Timestamp;
use kato_shared::Digest;

use super::{
    BundleError,
    export::{Export, Exported, Written, journal},
    header::name,
    medium::Bundle,
    receipt::Place,
    seal::insert,
    sign::Signer,
    tar::Name,
    verify::sizes,
};
use crate::snapshot::{Library, Record, Side};

/// The record of an interrupted export of the same snapshot under the same number, so that both make the same bundle.
pub(super) fn begun(out: &Path, record: &Record) -> Option<Record> {
    let other = journal(out, record)?.record;
    (other.root == record.root && other.seq == record.seq).then_some(other)
}

/// The record of an interrupted export of `root` with which the series of `lost` went on, whatever number the moment gave it.
pub(super) fn begun_for(out: &Path, (series, root): (&str, Digest), lost: &Place) -> Option<Record> {
    let entries = fs::read_dir(out).ok()?.flatten();
    let begun = entries.filter_map(|entry| {
        let file = entry.file_name();
        let digits = file.to_str()?.strip_suffix(".partial")?.strip_prefix(series)?;
        let record = Record {
            series: series.to_owned(),
            series_id: lost.series_id.clone(),
            seq: digits.strip_prefix('-')?.parse().ok()?,
            root,
            created: Timestamp::UNIX_EPOCH,
        };
        let found = begun(out, &record)?;
        let goes_on = found.series == record.series && found.series_id == record.series_id;
        (goes_on && found.seq > lost.seq).then_some(found)
    });
    begun.max_by_key(|record| record.seq)
}

/// Tells the ledger about bundles of `series` in `out` that it does not know, and that were written from here: signed by our key, of our
/// series, with a snapshot that is here.
///
/// # Errors
/// [`BundleError`] of the ledger.
pub(super) fn adopt(out: &Path, library: &Library, series: &str, signer: &Signer) -> Result<(), BundleError> {
    let trust = signer.trust()?;
    loop {
        let records = library.records(Side::Exported, series)?;
        let last = records.last();
        let seq = last.map_or(0, |last| last.seq) + 1;
        let Ok(bundle) = Bundle::open(&out.join(name(series, seq)), Some(&trust)) else {
            return Ok(());
        };
        let header = &bundle.header;
        let is_ours = header.series == series
            && header.seq == seq
            && last.is_none_or(|last| last.series_id == header.series_id)
            && library.root(header.root).is_ok();
        if !is_ours {
            return Ok(());
        }
        library.note(Side::Exported, &header.record())?;
    }
}

impl Export<'_> {
    /// The last bundle of the series, if it lies in the folder and is the one that would be written.
    pub(super) fn same(&self) -> Result<Option<Exported>, BundleError> {
        let series = &self.plan.record.series;
        let records = self.library.records(Side::Exported, series)?;
        let Some(last) = records.last() else {
            return Ok(None);
        };
        let ours = &self.plan.record;
        // What goes on with the series of a site is new, whatever lies here.
        if last.series_id != ours.series_id || last.seq.checked_add(1) != Some(ours.seq) {
            return Ok(None);
        }
        let folder = self.out.join(name(series, last.seq));
        let Ok(bundle) = Bundle::open(&folder, Some(&self.signer.trust()?)) else {
            return Ok(None);
        };
        let is_same = bundle.header.record() == *last && self.is_of(&bundle).unwrap_or_default();
        Ok(is_same.then(|| Exported {
            folder,
            record: last.clone(),
            written: Written::Before,
        }))
    }

    /// Whether `bundle` is what the plan would make, and its files are there; none when a member that the plan has is not in it.
    fn is_of(&self, bundle: &Bundle) -> Option<bool> {
        let (plan, header) = (self.plan, &bundle.header);
        if plan.volumes.len() != header.volumes.len() {
            return None;
        }
        let mut table = plan.table();
        for (pieces, volume) in plan.volumes.iter().zip(&header.volumes) {
            for piece in pieces {
                let sha256 = match piece.name {
                    Name::Blob(digest) => digest,
                    // What was signed by our key was read by us.
                    Name::Part(..) => bundle.table.get(&piece.name)?.sha256,
                };
                insert(&mut table, piece, volume.n, sha256);
            }
        }
        let ours = self
            .sealed(&header.record(), header.volumes.clone(), table)
            .ok()?;
        let has_documents = ours
            .documents
            .iter()
            .all(|(name, bytes)| fs::read(bundle.head.join(name)).is_ok_and(|found| found == *bytes));
        Some(ours.header == *header && has_documents && sizes(bundle, &[]).is_empty())
    }
}
