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
use tokio::time::{Instant, sleep};
use url::Url;

use crate::{
    module::{ModuleError, child::Line},
    platform::{Children, ProcessError},
    settings::{ImageSettings, Runtime},
};

/// How long a question may take.
const QUESTION: Duration = Duration::from_secs(30);

/// How long a runtime may be silent, as one is that is restarted; shorter, and a package upgrade fails what comes after it.
pub(super) const PATIENCE: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 20 });

/// After how long it is asked again.
const AGAIN: Duration = Duration::from_millis(if cfg!(test) { 50 } else { 1000 });

/// What questions are for.
const ASKING: &str = "asking the container runtime";

/// A container runtime that answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Engine {
    runtime: Runtime,
    command: Vec<String>,
}

impl Engine {
    /// The runtime that the settings name, or the first whose program is there; it has to answer within `patience`. One that is there
    /// and silent is not passed over: its images would go to another one.
    ///
    /// # Errors
    /// [`ModuleError::NoRuntime`], [`ModuleError::Silent`].
    pub async fn find(
        settings: &ImageSettings,
        children: &Children,
        patience: Duration,
    ) -> Result<Self, ModuleError> {
        let candidates = match settings.runtime {
            Runtime::Auto => vec![Runtime::Docker, Runtime::Podman, Runtime::Containerd],
            named @ (Runtime::Docker | Runtime::Podman | Runtime::Containerd) => vec![named],
        };
        let mut asked = Vec::new();
        for runtime in candidates {
            let engine = Self::of(settings, runtime);
            // All three ask their daemon, where they have one.
            let version = engine.line(["version"]);
            match version.ask(&children.on(ASKING), QUESTION).await {
                Ok(_) => return Ok(engine),
                Err(missing @ ProcessError::Start { .. }) => {
                    asked.push(kato_shared::chain::Chain(&missing).to_string());
                }
                Err(_silent) => {
                    engine.ask(children, &version, patience).await?;
                    return Ok(engine);
                }
            }
        }
        Err(ModuleError::NoRuntime {
            asked: asked.join("; "),
        })
    }

    /// `runtime` with the command of the settings, else the usual one.
    fn of(settings: &ImageSettings, runtime: Runtime) -> Self {
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
        Self { runtime, command }
    }

    /// The runtime of an upgrade that has `settled` on one: that one, unless the settings name another by now.
    ///
    /// # Errors
    /// Those of [`Self::find`].
    pub async fn settled(
        settled: Option<&Self>,
        settings: &ImageSettings,
        children: &Children,
    ) -> Result<Self, ModuleError> {
        match (settled, settings.runtime) {
            (Some(engine), Runtime::Auto) => Ok(engine.clone()),
            (Some(_), named) => Ok(Self::of(settings, named)),
            (None, _) => Self::find(settings, children, PATIENCE).await,
        }
    }

    /// What the runtime says to the question `line`, which is asked again while it says nothing: its daemon may be restarting.
    ///
    /// # Errors
    /// [`ModuleError::Silent`] after `patience`.
    async fn ask(&self, children: &Children, line: &Line, patience: Duration) -> Result<String, ModuleError> {
        let began = Instant::now();
        loop {
            let error = match line.ask(&children.on(ASKING), QUESTION).await {
                Ok(text) => return Ok(text),
                Err(error) => error,
            };
            if began.elapsed() >= patience {
                return Err(ModuleError::Silent {
                    runtime: self.command.join(" "),
                    source: error,
                });
            }
            sleep(AGAIN).await;
        }
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
    ///
    /// # Errors
    /// [`ModuleError::Silent`].
    pub(super) async fn holds(
        &self,
        children: &Children,
        reference: &str,
        image: &Image,
    ) -> Result<Option<String>, ModuleError> {
        if self.runtime == Runtime::Containerd {
            let line = self
                .line(["images", "check"])
                .with([format!("name=={reference}")]);
            let text = self.ask(children, &line, PATIENCE).await?;
            let columns = row(&text, reference).unwrap_or_default();
            let is_whole = columns.get(3).is_some_and(|status| status == "complete");
            return Ok(columns
                .into_iter()
                .nth(2)
                .filter(|digest| is_whole && *digest == image.digest.to_string()));
        }
        let Some(found) = self.inspect(children, reference).await? else {
            return Ok(None);
        };
        let ending = format!("@{}", image.digest);
        let mut digests = found["RepoDigests"].as_array().into_iter().flatten();
        let is_it = digests.any(|digest| digest.as_str().is_some_and(|digest| digest.ends_with(&ending)));
        Ok(found["Id"].as_str().filter(|_| is_it).map(str::to_owned))
    }

    /// The runtime's own name of the image that `reference` means; `None` when the runtime says that there is no such reference.
    ///
    /// # Errors
    /// [`ModuleError::Silent`] when it does not say.
    pub(super) async fn meaning(
        &self,
        children: &Children,
        reference: &str,
    ) -> Result<Option<String>, ModuleError> {
        if self.runtime == Runtime::Containerd {
            let line = self.line(["images", "list"]).with([format!("name=={reference}")]);
            let table = self.ask(children, &line, PATIENCE).await?;
            return Ok(row(&table, reference).and_then(|columns| columns.into_iter().nth(2)));
        }
        let found = self.inspect(children, reference).await?;
        Ok(found.and_then(|found| found["Id"].as_str().map(str::to_owned)))
    }

    /// What docker or podman knows of `reference`. That there is nothing counts only when a list, which succeeds either way, has nothing
    /// of it: an inspection fails in the same way when its daemon is not there.
    async fn inspect(&self, children: &Children, reference: &str) -> Result<Option<Value>, ModuleError> {
        let began = Instant::now();
        loop {
            let line = self.line(["image", "inspect", reference]);
            let error = match line.ask(&children.on(ASKING), QUESTION).await {
                Ok(text) => match serde_json::from_str::<Vec<Value>>(&text) {
                    Ok(mut all) => return Ok(all.pop()),
                    Err(source) => {
                        return Err(ModuleError::Unclear {
                            runtime: self.command.join(" "),
                            source,
                        });
                    }
                },
                Err(error) => error,
            };
            let list = self.line(["image", "ls", "--quiet", "--no-trunc", reference]);
            if self.ask(children, &list, PATIENCE).await?.trim().is_empty() {
                return Ok(None);
            }
            if began.elapsed() >= PATIENCE {
                return Err(ModuleError::Silent {
                    runtime: self.command.join(" "),
                    source: error,
                });
            }
            sleep(AGAIN).await;
        }
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

    /// A docker that keeps a tag in a file, and is silent as long as there is a file `silent`, or for the next `inspect` calls that
    /// `flaky` has a line for.
    fn fake() -> (tempfile::TempDir, ImageSettings) {
        const DOCKER: &str = r#"#!/bin/sh
state=${0%/*}
echo "$*" >> "$state/calls"
if [ -e "$state/silent" ]; then echo "Cannot connect to the daemon" >&2; exit 1; fi
case "$1 $2" in
    "image inspect")
        if [ -s "$state/flaky" ]; then sed -i 1d "$state/flaky"; exit 1; fi
        if [ ! -e "$state/tag" ]; then echo "No such image" >&2; exit 1; fi
        printf '[{"Id": "%s", "RepoDigests": []}]' "$(cat "$state/tag")" ;;
    "image ls") cat "$state/tag" 2>/dev/null ;;
esac
exit 0
"#;
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("docker");
        durable::write(&program, DOCKER.as_bytes(), 0o755).unwrap();
        let settings = ImageSettings {
            command: vec![program.display().to_string()],
            ..ImageSettings::default()
        };
        (folder, settings)
    }

    #[tokio::test]
    async fn c14_a_runtime_that_says_nothing_has_not_said_that_there_is_no_such_tag() {
        let (folder, settings) = fake();
        let children = Children::default();
        let put = |name: &str, text: &str| {
            durable::write(&folder.path().join(name), text.as_bytes(), 0o644).unwrap();
        };
        let engine = Engine::find(&settings, &children, PATIENCE).await.unwrap();
        assert_eq!(engine.meaning(&children, "x:live").await.unwrap(), None);
        put("tag", "sha256:old");
        put("flaky", "1\n2\n");
        let meaning = engine.meaning(&children, "x:live").await.unwrap();
        assert_eq!(meaning.as_deref(), Some("sha256:old"), "asked again");
        put("silent", "");
        let error = engine.meaning(&children, "x:live").await.unwrap_err();
        assert!(matches!(error, ModuleError::Silent { .. }), "{error:?}");
        // Also on the way back, where there was no such tag.
        let moved = crate::module::image::Moved {
            tagged: "x:live".into(),
            was: None,
            engine,
        };
        let deadline = Instant::now() + PATIENCE;
        let error = crate::module::image::take_back(&moved, &children, deadline)
            .await
            .unwrap_err();
        assert!(matches!(error, ModuleError::Silent { .. }), "{error:?}");
    }

    #[tokio::test]
    async fn c14_a_runtime_that_is_there_and_silent_is_not_passed_over_and_an_upgrade_keeps_its_own() {
        let (folder, settings) = fake();
        let children = Children::default();
        durable::write(&folder.path().join("silent"), b"", 0o644).unwrap();
        let error = Engine::find(&settings, &children, PATIENCE).await.unwrap_err();
        assert!(matches!(error, ModuleError::Silent { .. }), "{error:?}");
        let settled = engine(Runtime::Podman);
        let found = Engine::settled(Some(&settled), &settings, &children)
            .await
            .unwrap();
        assert_eq!(found, settled);
        let named = ImageSettings {
            runtime: Runtime::Docker,
            ..settings
        };
        let found = Engine::settled(Some(&settled), &named, &children).await.unwrap();
        assert_eq!(found.runtime, Runtime::Docker, "an operator has the last word");
        let missing = ImageSettings {
            command: vec!["/nonexistent/docker".into()],
            ..ImageSettings::default()
        };
        let error = Engine::find(&missing, &children, PATIENCE).await.unwrap_err();
        assert!(matches!(error, ModuleError::NoRuntime { .. }), "{error:?}");
    }
}
