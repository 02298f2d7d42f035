//! What an import reads from a medium: a header of a volume, and a document. Whatever the bytes are, a name stays below its folder, what is
//! accepted is written again as it was, and a chunk never becomes more than it may.

use kato_proxy::{
    bundle::{
        header::{Header, is_series, read_table, write_table},
        tar,
    },
    snapshot::{ChunkRef, Root, Wanted},
};
use kato_shared::Digest;

/// Up to 512 bytes are a block; all of them are taken for each kind of document.
pub fn bundle(data: &[u8]) {
    let mut block = [0_u8; 512];
    let length = data.len().min(block.len());
    block[..length].copy_from_slice(&data[..length]);
    if let Ok(Some(header)) = tar::Header::parse(&block) {
        let path = header.name.path();
        assert!(path.starts_with("blobs/sha256/") || path.starts_with("parts/sha256/"));
        assert!(!path.contains("..") && path.len() <= 100);
        assert_eq!(tar::Header::parse(&header.block()), Ok(Some(header)));
    }
    if let Ok(header) = Header::read(data) {
        assert!(is_series(&header.series) && header.seq > 0);
        assert!(header.volumes.iter().all(|volume| !volume.file.contains('/')));
    }
    if let Ok(table) = read_table(data, 3) {
        assert!(table.values().all(|member| member.volume <= 3));
        let text = write_table(&table).expect("what was read can be written");
        assert_eq!(read_table(&text, 3).expect("what was written can be read"), table);
    }
    let chunk = ChunkRef {
        first: String::new(),
        digest: Digest::of(data),
        size: data.len() as u64,
        unpacked: 4096,
        entries: 1,
    };
    if let Ok(entries) = chunk.decode(data) {
        assert_eq!(entries.len(), 1);
    }
    let _judged = Root::decode(Digest::of(data), data);
    if let Ok(wanted) = Wanted::read(data) {
        let text = serde_json::to_vec(&wanted).expect("what was read can be written");
        assert_eq!(Wanted::read(&text).expect("what was written can be read"), wanted);
    }
}
