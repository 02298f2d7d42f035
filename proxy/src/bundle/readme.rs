//! `README.txt` of a bundle: what it is, and how to verify and use it without this program.

use super::header::{Header, Kind};

/// The text for the bundle of `header`.
pub(super) fn readme(header: &Header) -> String {
    let name = header.name();
    let joined = if header.volumes.is_empty() {
        "The commands below run in this folder.\n".to_owned()
    } else {
        format!(
            "The payloads are in {count} volumes ({name}.v001-of-{count:03}.tar and so on). Unpack them beside the head first:\n\n\
             \x20 mkdir bundle && cp -r {name}.head/. bundle/\n\
             \x20 for v in {name}.v*.tar; do tar -xf \"$v\" -C bundle; done\n\
             \x20 cd bundle\n\
             \x20 for d in parts/sha256/*/; do [ -d \"$d\" ] && cat \"$d\"* > blobs/sha256/\"$(basename \"$d\")\"; done\n",
            count = header.volumes.len(),
        )
    };
    let delta = match header.kind {
        Kind::Full => String::new(),
        Kind::Delta | Kind::Satisfy => "This bundle leaves out what earlier ones brought. skopeo finds that in a folder with blobs/sha256 of all bundles:\n\n\
             \x20 skopeo copy --src-shared-blob-dir ALL/blobs oci:.:IMAGE docker://REGISTRY/IMAGE\n\n"
            .to_owned(),
    };
    format!(
        "{name}: a bundle of a kato-proxy store, made {created}.\n\
         Series {series}, number {seq}, root {root}.\n\
         \n\
         With kato-proxy, on the other side:\n\
         \n\
         \x20 kato-proxy bundle verify . --trust KEY.pub\n\
         \x20 kato-proxy bundle import . --trust KEY.pub\n\
         \n\
         Without it:\n\
         \n\
         {joined}\n\
         \x20 minisign -Vm BUNDLE.json -p KEY.pub\n\
         \x20 sha256sum -c --quiet SHA256SUMS\n\
         \n\
         BUNDLE.json, which is signed, holds the SHA-256 of SHA256SUMS, of index.json and of each volume: compare the first,\n\
         \n\
         \x20 sha256sum SHA256SUMS && grep '\"sums\"' BUNDLE.json\n\
         \n\
         and SHA256SUMS then covers everything else. The folder is an OCI image layout; images stand in index.json by name:\n\
         \n\
         \x20 skopeo copy --all --preserve-digests oci:.:IMAGE docker://REGISTRY/IMAGE\n\
         \n\
         {delta}\
         The key must come from its owner by another way than this medium.\n",
        created = header.created,
        series = header.series,
        seq = header.seq,
        root = header.root,
    )
}
