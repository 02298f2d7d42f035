//! Reads of the index that go over many rows. None of them stands between a client and its answer.

use std::collections::HashSet;

use kato_shared::Digest;
use redb::{ReadableMultimapTable, ReadableTable, TableDefinition};

use super::{
    ContentRef, StoreError, StoredResponse,
    eviction::Standing,
    index::Handle,
    keys::Keys,
    pins::Pin,
    tables::{self, CONTENTS, ContentValue, PINS, REFERENCES, RESPONSES},
};

impl Handle {
    /// All content, with what eviction knew about it.
    pub(super) fn standings(&self) -> Result<Vec<(Digest, u64, Standing)>, StoreError> {
        self.read("read the order of eviction", |transaction| {
            let table = transaction.open_table(CONTENTS)?;
            let mut rows =
                Vec::with_capacity(usize::try_from(redb::ReadableTableMetadata::len(&table)?).unwrap_or(0));
            for row in table.iter()? {
                let (digest, row) = row?;
                let value = ContentValue::read(row.value());
                rows.push((Digest::from_bytes(digest.value()), value.length, value.standing));
            }
            Ok(rows)
        })
    }

    /// What `keys` is to remember of every key of a table.
    pub(super) fn prints(
        &self,
        table: TableDefinition<'static, &'static str, &'static [u8]>,
        keys: &Keys,
    ) -> Result<Vec<u64>, StoreError> {
        self.read("read the keys", |transaction| {
            let table = transaction.open_table(table)?;
            let mut prints =
                Vec::with_capacity(usize::try_from(redb::ReadableTableMetadata::len(&table)?).unwrap_or(0));
            for row in table.iter()? {
                prints.push(keys.print(row?.0.value()));
            }
            Ok(prints)
        })
    }

    /// The keys that name `digest`.
    pub(super) fn keys_of(&self, digest: &Digest) -> Result<Vec<String>, StoreError> {
        self.read("look for the names of content", |transaction| {
            let references = transaction.open_multimap_table(REFERENCES)?;
            let keys = ReadableMultimapTable::get(&references, digest.as_bytes())?;
            keys.map(|key| Ok(key?.value().to_owned())).collect()
        })
    }

    /// The sizes of `contents`, none for what is not known.
    pub(super) fn lengths(&self, contents: &[ContentRef]) -> Result<Vec<Option<u64>>, StoreError> {
        self.read("look for content", |transaction| {
            let table = transaction.open_table(CONTENTS)?;
            contents
                .iter()
                .map(|content| Ok(table.get(content.digest.as_bytes())?.map(|row| row.value().0)))
                .collect()
        })
    }

    /// Content that no key names, with its size.
    pub(super) fn unnamed(&self) -> Result<Vec<(Digest, u64)>, StoreError> {
        self.read("look for content without a name", |transaction| {
            let table = transaction.open_table(CONTENTS)?;
            let references = transaction.open_multimap_table(REFERENCES)?;
            let mut rows = Vec::new();
            for row in table.iter()? {
                let (digest, row) = row?;
                if ReadableMultimapTable::get(&references, digest.value())?.is_empty() {
                    rows.push((Digest::from_bytes(digest.value()), row.value().0));
                }
            }
            Ok(rows)
        })
    }

    /// The content that `pin` covers now.
    pub(super) fn covered(&self, pin: &Pin) -> Result<HashSet<Digest>, StoreError> {
        match pin {
            Pin::Content(digest) => Ok(HashSet::from([*digest])),
            Pin::Key(key) => {
                let responses = self.responses(key)?;
                Ok(responses
                    .into_iter()
                    .map(|response| response.content.digest)
                    .collect())
            }
            Pin::Prefix(prefix) => {
                let mut found = HashSet::new();
                self.for_each(prefix, |_, responses| {
                    found.extend(responses.into_iter().map(|response| response.content.digest));
                })?;
                Ok(found)
            }
        }
    }

    /// Shows all keys that begin with `prefix`, in order, with their responses; rows that cannot be read are passed over.
    pub(super) fn for_each(
        &self,
        prefix: &str,
        mut show: impl FnMut(&str, Vec<StoredResponse>),
    ) -> Result<(), StoreError> {
        self.read("go over the responses", |transaction| {
            let table = transaction.open_table(RESPONSES)?;
            for row in table.range::<&str>(prefix..)? {
                let (key, value) = row?;
                if !key.value().starts_with(prefix) {
                    break;
                }
                if let Ok(responses) = tables::decode(key.value(), value.value()) {
                    show(key.value(), responses);
                }
            }
            Ok(())
        })
    }

    /// What is pinned, and since when in seconds since 1970.
    pub(super) fn pins(&self) -> Result<Vec<(Pin, u64)>, StoreError> {
        self.read("read the pins", |transaction| {
            let table = transaction.open_table(PINS)?;
            let mut pins = Vec::new();
            for row in table.iter()? {
                let (text, since) = row?;
                match text.value().parse() {
                    Ok(pin) => pins.push((pin, since.value())),
                    Err(error) => tracing::error!(%error, "a pin cannot be read; it does not hold anything"),
                }
            }
            Ok(pins)
        })
    }
}
