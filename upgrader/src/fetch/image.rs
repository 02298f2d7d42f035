//! The files of a container image behind a cache's registry door: its manifests, configurations and layers.
//!
//! Only manifests are read, each verified by its digest before it is; what they name has digest and size and is fetched like
//! any other file. Layers of platforms that are not asked for are left out.

use kato_shared::{
    Digest,
    release::Image,
    trust::TargetFile,
    verify::{Verifier, VerifyError},
};
use serde::Deserialize;
use url::Url;

use super::{
    FetchError, Fetcher,
    download::{again, wrong_bytes},
    error,
    exchange::{self, Failed, Retry},
    retry::Retries,
};

/// Larger manifests are refused: registries take no larger ones (OCI distribution specification, "Pushing Manifests").
const MAX_MANIFEST: u64 = 4 << 20;

/// A manifest or an index, as far as it names other content (OCI image specification).
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Document {
    manifests: Vec<Descriptor>,
    config: Option<Descriptor>,
    layers: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
struct Descriptor {
    digest: Digest,
    size: u64,
    platform: Option<Platform>,
}

#[derive(Debug, Deserialize)]
struct Platform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

impl Descriptor {
    /// Whether it is for `wanted`, e.g. `linux/amd64`; without a wish, or without a word about it, it is.
    fn is_for(&self, wanted: Option<&str>) -> bool {
        let (Some(platform), Some(wanted)) = (&self.platform, wanted) else {
            return true;
        };
        let short = format!("{}/{}", platform.os, platform.architecture);
        let long = platform
            .variant
            .as_ref()
            .map(|variant| format!("{short}/{variant}"));
        wanted == short || long.as_deref() == Some(wanted)
    }
}

/// See [`Fetcher::image`].
pub(super) async fn files(
    fetcher: &Fetcher,
    cache: &Url,
    image: &Image,
) -> Result<Vec<TargetFile>, FetchError> {
    let mut waiting = vec![image.digest];
    let mut files: Vec<TargetFile> = Vec::new();
    while let Some(digest) = waiting.pop() {
        let mut file = file(cache, image, "manifests", digest, 0);
        let bytes = manifest(fetcher, &file).await?;
        file.size = bytes.len() as u64;
        // What cannot be read is no manifest of a kind that names anything.
        let document: Document = serde_json::from_slice(&bytes).unwrap_or_default();
        files.push(file);
        let platform = image.platform.as_deref();
        let below = document.manifests.iter().filter(|below| below.is_for(platform));
        waiting.extend(below.map(|below| below.digest));
        for blob in document.config.iter().chain(&document.layers) {
            if !files.iter().any(|file| file.digest == blob.digest) {
                files.push(self::file(cache, image, "blobs", blob.digest, blob.size));
            }
        }
    }
    Ok(files)
}

/// A file of the image at the cache's door.
fn file(cache: &Url, image: &Image, kind: &str, digest: Digest, size: u64) -> TargetFile {
    let host = image.registry().split(':').next().unwrap_or_default();
    let repository = &image.name[image.registry().len()..];
    let prefix = cache.path().trim_end_matches('/');
    let mut url = cache.clone();
    url.set_path(&format!("{prefix}/v2/{host}{repository}/{kind}/{digest}"));
    TargetFile {
        name: format!("{}/{kind}/{digest}", image.name),
        digest,
        size,
        url,
    }
}

/// A manifest, whole and verified.
async fn manifest(fetcher: &Fetcher, file: &TargetFile) -> Result<Vec<u8>, FetchError> {
    let mut retries = Retries::new(MAX_MANIFEST);
    let asking = async {
        loop {
            match receive(fetcher, file).await {
                Ok(bytes) => return Ok(bytes),
                Err(failed) => again(&mut retries, failed).await?,
            }
        }
    };
    let in_time = tokio::time::timeout(fetcher.timeouts.document, asking).await;
    in_time.unwrap_or_else(|_elapsed| Err(fetcher.too_slow(&file.url, 0)))
}

async fn receive(fetcher: &Fetcher, file: &TargetFile) -> Result<Vec<u8>, Failed> {
    let mut answer = exchange::send(fetcher, &file.url, None).await?;
    let mut bytes = Vec::new();
    loop {
        match answer.response.chunk().await {
            Ok(Some(piece)) => bytes.extend_from_slice(&piece),
            Ok(None) => break,
            Err(source) => {
                return Err(Failed {
                    error: FetchError::Interrupted {
                        url: error::shown(&file.url),
                        received: bytes.len() as u64,
                        size: 0,
                        anew: true,
                        source: Some(source.without_url()),
                    },
                    retry: Retry::Again(None),
                });
            }
        }
        if bytes.len() as u64 > MAX_MANIFEST {
            break;
        }
    }
    let verified = |bytes: &[u8]| -> Result<(), VerifyError> {
        let mut verifier = Verifier::new((bytes.len() as u64).min(MAX_MANIFEST), file.digest);
        verifier.update(bytes)?;
        verifier.finish()
    };
    verified(&bytes).map_err(|verdict| wrong_bytes(fetcher, file, verdict))?;
    Ok(bytes)
}
