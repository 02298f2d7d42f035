//! docker, podman and containerd: how each pulls by digest through a cache, tags, and is asked what it holds.
//!
//! | Runtime | Through the cache | What must be set up once |
//! |---|---|---|
//! | docker | `pull CACHE/REGISTRY/REPOSITORY@DIGEST` | the cache in `insecure-registries` when it has no TLS and is not on loopback |
//! | podman | the same, with `--tls-verify=false` when the cache has no TLS | nothing |
//! | containerd | `pull --hosts-dir` with a `hosts.toml` for the registry, made for the one call | nothing |
//!
//! The colon of a registry's port cannot be in the middle of a reference: docker and podman ask the cache for such a registry
//! by its host name alone, which must then be an alias of the upstream.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use kato_shared::{durable, release::Image};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::Instant;
use url::Url;

use crate::{
    module::{ModuleError, child::Line},
    platform::Children,
    settings::{ImageSettings, Runtime},
};

/// How long a question may take.
const QUESTION: Duration = Duration::from_secs(30);

/// What questions are for.
const ASKING: &str = "asking the container runtime";

/// A container runtime that answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Engine {
    runtime: Runtime,
    command: Vec<String>,
}

impl Engine {
    /// The runtime that the settings name, or the first that answers.
    ///
    /// # Errors
    /// [`ModuleError::NoRuntime`].
    pub async fn find(settings: &ImageSettings, children: &Children) -> Result<Self, ModuleError> {
        let candidates = match settings.runtime {
            Runtime::Auto => vec![Runtime::Docker, Runtime::Podman, Runtime::Containerd],
            named @ (Runtime::Docker | Runtime::Podman | Runtime::Containerd) => vec![named],
        };
        let mut asked = Vec::new();
        for runtime in candidates {
            let usual: &[&str] = match runtime {
                Runtime::Auto | Runtime::Docker => &["docker"],
                Runtime::Podman => &["podman"],
                // Where Kubernetes looks for images.
                Runtime::Containerd => &["ctr", "--namespace", "k8s.io"],
            };
            let command = if settings.command.is_empty() {
                usual.iter().map(ToString::to_string).collect()
            } else {
                settings.command.clone()
            };
            let engine = Self { runtime, command };
            // All three ask their daemon, where they have one.
            match engine.line(["version"]).ask(&children.on(ASKING), QUESTION).await {
                Ok(_) => return Ok(engine),
                Err(error) => asked.push(kato_shared::chain::Chain(&error).to_string()),
            }
        }
        Err(ModuleError::NoRuntime {
            asked: asked.join("; "),
        })
    }

    fn line<A: Into<String>>(&self, arguments: impl IntoIterator<Item = A>) -> Line {
        Line::new(self.command.clone()).with(arguments)
    }

    /// The name under which `image` is pulled.
    pub(super) fn source(&self, image: &Image, cache: Option<&Url>) -> String {
        let authority = cache
            .filter(|_| self.runtime != Runtime::Containerd)
            .and_then(|cache| {
                let host = cache.host_str()?;
                Some(
                    cache
                        .port_or_known_default()
                        .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")),
                )
            });
        let Some(authority) = authority else {
            return image.by_digest();
        };
        let host = image.registry().split(':').next().unwrap_or_default();
        let repository = &image.name[image.registry().len()..];
        format!("{authority}/{host}{repository}@{}", image.digest)
    }

    /// Pulls `image` by its digest. `work` is a folder for what the call needs.
    pub(super) async fn pull(
        &self,
        children: &Children,
        image: &Image,
        cache: Option<&Url>,
        work: &Path,
        deadline: Instant,
    ) -> Result<(), ModuleError> {
        let is_plain = cache.is_some_and(|cache| cache.scheme() == "http");
        let mut line = match self.runtime {
            Runtime::Containerd => self.line(["images", "pull"]),
            Runtime::Podman if is_plain => self.line(["pull", "--quiet", "--tls-verify=false"]),
            Runtime::Auto | Runtime::Docker | Runtime::Podman => self.line(["pull", "--quiet"]),
        };
        if let Some(cache) = cache.filter(|_| self.runtime == Runtime::Containerd) {
            line = line.with(["--hosts-dir".to_owned(), hosts(image, cache, work)?]);
        }
        if let Some(platform) = &image.platform {
            line = line.with(["--platform", platform]);
        }
        let what = format!("pulling {}", image.by_digest());
        line.with([self.source(image, cache)])
            .run(children, &what, deadline)
            .await?;
        Ok(())
    }

    /// What `reference` means when its digest is that of `image`, and its content is whole.
    pub(super) async fn holds(&self, children: &Children, reference: &str, image: &Image) -> Option<String> {
        if self.runtime == Runtime::Containerd {
            let line = self
                .line(["images", "check"])
                .with([format!("name=={reference}")]);
            let text = line.ask(&children.on(ASKING), QUESTION).await.ok()?;
            let columns = row(&text, reference)?;
            let is_whole = columns.get(3).is_some_and(|status| status == "complete");
            return columns
                .into_iter()
                .nth(2)
                .filter(|digest| is_whole && *digest == image.digest.to_string());
        }
        let found = self.inspect(children, reference).await?;
        let ending = format!("@{}", image.digest);
        let digests = found["RepoDigests"].as_array()?;
        digests
            .iter()
            .filter_map(Value::as_str)
            .any(|digest| digest.ends_with(&ending))
            .then(|| found["Id"].as_str().map(str::to_owned))?
    }

    /// The runtime's own name of the image that `reference` means; `None` when there is no such reference.
    pub(super) async fn meaning(&self, children: &Children, reference: &str) -> Option<String> {
        if self.runtime == Runtime::Containerd {
            let line = self.line(["images", "list"]).with([format!("name=={reference}")]);
            return row(&line.ask(&children.on(ASKING), QUESTION).await.ok()?, reference)?
                .into_iter()
                .nth(2);
        }
        self.inspect(children, reference).await?["Id"]
            .as_str()
            .map(str::to_owned)
    }

    async fn inspect(&self, children: &Children, reference: &str) -> Option<Value> {
        let text = self
            .line(["image", "inspect", reference])
            .ask(&children.on(ASKING), QUESTION)
            .await
            .ok()?;
        let mut all: Vec<Value> = serde_json::from_str(&text).ok()?;
        all.pop()
    }

    /// Lets `tagged` mean what `reference` means.
    pub(super) async fn tag(
        &self,
        children: &Children,
        reference: &str,
        tagged: &str,
        deadline: Instant,
    ) -> Result<(), ModuleError> {
        let line = if self.runtime == Runtime::Containerd {
            self.line(["images", "tag", "--force", reference, tagged])
        } else {
            self.line(["tag", reference, tagged])
        };
        line.run(children, &format!("tagging {tagged}"), deadline).await?;
        Ok(())
    }

    /// Removes the tag, and nothing that others use.
    pub(super) async fn untag(
        &self,
        children: &Children,
        tagged: &str,
        deadline: Instant,
    ) -> Result<(), ModuleError> {
        let line = match self.runtime {
            Runtime::Containerd => self.line(["images", "remove", tagged]),
            Runtime::Podman => self.line(["untag", tagged, tagged]),
            // Of an image that has other names, `rmi` removes the name alone; the pulled name is one.
            Runtime::Auto | Runtime::Docker => self.line(["rmi", "--no-prune", tagged]),
        };
        line.run(children, &format!("removing the tag {tagged}"), deadline)
            .await?;
        Ok(())
    }

    /// Where the runtime keeps images.
    pub(super) async fn folder(&self, children: &Children) -> Option<PathBuf> {
        let line = match self.runtime {
            Runtime::Containerd => return Some("/var/lib/containerd".into()),
            Runtime::Podman => self.line(["info", "--format", "{{.Store.GraphRoot}}"]),
            Runtime::Auto | Runtime::Docker => self.line(["info", "--format", "{{.DockerRootDir}}"]),
        };
        let folder = PathBuf::from(line.ask(&children.on(ASKING), QUESTION).await.ok()?.trim());
        folder.is_absolute().then_some(folder)
    }
}

/// The columns of the row that is about `reference`, in a table of `ctr`.
fn row(table: &str, reference: &str) -> Option<Vec<String>> {
    table
        .lines()
        .map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .find(|columns| columns.first().is_some_and(|first| first == reference))
}

/// Writes the `hosts.toml` by which containerd asks the cache for the image's registry, and gives its folder.
fn hosts(image: &Image, cache: &Url, work: &Path) -> Result<String, ModuleError> {
    let folder = work.join("hosts");
    let of_registry = folder.join(image.registry());
    durable::create_folder(&of_registry)?;
    let address = cache.as_str().trim_end_matches('/');
    let table =
        format!("server = \"{address}\"\n[host.\"{address}\"]\n  capabilities = [\"pull\", \"resolve\"]\n");
    durable::write(&of_registry.join("hosts.toml"), table.as_bytes(), 0o644)?;
    Ok(folder.display().to_string())
}

#[cfg(test)]
mod tests {
    use kato_shared::Digest;

    use super::*;

    fn engine(runtime: Runtime) -> Engine {
        Engine {
            runtime,
            command: vec!["x".into()],
        }
    }

    #[test]
    fn the_cache_is_asked_by_the_registrys_host_and_containerd_by_the_images_own_name() {
        let image = Image {
            name: "hub.example:5000/lab/app".into(),
            digest: Digest::of(b"m"),
            size: 1,
            platform: None,
            tag: None,
        };
        let cache = Url::parse("http://10.0.0.1:3180/").unwrap();
        let digest = image.digest;
        let through = format!("10.0.0.1:3180/hub.example/lab/app@{digest}");
        assert_eq!(engine(Runtime::Docker).source(&image, Some(&cache)), through);
        assert_eq!(engine(Runtime::Podman).source(&image, Some(&cache)), through);
        let own = format!("hub.example:5000/lab/app@{digest}");
        assert_eq!(engine(Runtime::Containerd).source(&image, Some(&cache)), own);
        assert_eq!(engine(Runtime::Docker).source(&image, None), own);
    }

    #[test]
    fn a_row_of_the_table_is_found_by_the_whole_reference() {
        let table = "REF TYPE DIGEST STATUS SIZE UNPACKED\nhub.example/app:v10 t sha256:a complete (2/2) 1 KiB true\nhub.example/app:v1  t sha256:b incomplete (1/2) 1 KiB true\n";
        assert_eq!(
            row(table, "hub.example/app:v1").unwrap()[2..4],
            ["sha256:b", "incomplete"]
        );
        assert_eq!(row(table, "hub.example/app"), None);
    }
}
