//! TLS on both sides: registries whose certificates an authority of their own has made, and the door as clients use it by default.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use integration_tests::{
    authority::Authority,
    command,
    image::Image,
    registry::{Answered, Registry},
};
use kato_shared::durable;
use tempfile::TempDir;

use crate::{
    programs::{Containerd, Docker, is_there, podman, skopeo_with},
    scripted::{Cache, cache_in},
};

/// As `htpasswd -nbB -C 4 ada opensesame` writes it: a user of the registry, or of the cache.
pub(crate) const ADA: &str = "ada:$2y$04$0RjH4FzSBaKxAcmgS7yN2Oouvj3iNIQq7Pl4haJTzLyE4b/V2cu42\n";
/// What she shows.
pub(crate) const ADA_SHOWS: &str = "ada:opensesame";

/// A registry behind TLS that wants name and password, and a cache with a door with TLS; one authority for both.
struct Site {
    registry: Registry,
    authority: Authority,
    image: Image,
    cache: Cache,
    folder: TempDir,
}

impl Site {
    /// `door` are keys of `[registry]`, `upstream` those of the upstream and of its table; `{folder}` in them is the folder with
    /// `ca.crt`, `users` and `credentials`.
    async fn start(door: &str, upstream: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let authority = Authority::new(folder.path())?;
        let users = folder.path().join("users");
        durable::write(&users, ADA.as_bytes(), 0o600)?;
        durable::write(&folder.path().join("credentials"), ADA_SHOWS.as_bytes(), 0o600)?;
        let image = Image::build(folder.path(), "first")?;
        let storage = folder.path().join("registry");
        std::fs::create_dir_all(&storage)?;
        let registry = Registry::start_for_users(&storage, Some(&authority.server("registry")?), &users)?;
        image.push_as(
            &format!("{}/lab/app:v1", registry.address),
            &["--dest-creds", ADA_SHOWS],
        )?;
        let own = authority.server("cache")?;
        let settings = format!(
            "[listen]\ntls = \"127.0.0.1:0\"\n[tls]\ncertificate = \"{}\"\nkey = \"{}\"\n\
             [registry]\ndefault = \"lab\"\n{door}\n[[upstream]]\nname = \"lab\"\nkind = \"registry\"\n\
             urls = [\"https://{}/\"]\n{upstream}\n",
            own.certificate.display(),
            own.key.display(),
            registry.address
        );
        let settings = settings.replace("{folder}", &folder.path().display().to_string());
        let cache = cache_in(tempfile::tempdir()?, &settings).await?;
        Ok(Self {
            registry,
            authority,
            image,
            cache,
            folder,
        })
    }

    /// The door with TLS, as it stands in references.
    fn door(&self) -> Result<String> {
        Ok(self.cache.proxy.tls.context("no TLS")?.to_string())
    }

    /// The folder that a client has for the certificates of this door (`certs.d/HOST:PORT`).
    fn certs(&self) -> Result<String> {
        let folder = self.folder.path().join("certs.d").join(self.door()?);
        std::fs::create_dir_all(&folder)?;
        let certificate = std::fs::read(&self.authority.certificate)?;
        durable::write(&folder.join("ca.crt"), &certificate, 0o644)?;
        Ok(text(&folder)?.to_owned())
    }

    fn client(&self, name: &str) -> Result<PathBuf> {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(&path)?;
        Ok(path)
    }
}

const OPENED: &str = "ca_file = \"{folder}/ca.crt\"\n[upstream.registry]\ntag_ttl = \"0s\"\n\
                      aliases = [\"hub.example\"]\ncredentials_file = \"{folder}/credentials\"";

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is not UTF-8")
}

fn blobs(requests: &[Answered]) -> usize {
    requests.iter().filter(|request| request.is_blob()).count()
}

fn pulls<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    tokio::task::block_in_place(work)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_comes_from_a_registry_behind_tls_that_wants_a_password_by_each_door_with_tls() -> Result<()>
{
    let site = Site::start("", OPENED).await?;
    let (door, certs) = (site.door()?, site.certs()?);
    let cert_dir = ["--src-cert-dir", certs.as_str()];
    let digest = site.image.digest();
    pulls(|| {
        skopeo_with(
            &cert_dir,
            &format!("{door}/hub.example/lab/app:v1"),
            &site.client("s1")?,
        )
    })?;
    assert_eq!(blobs(&site.registry.requests()), site.image.blobs().len());
    let mark = site.registry.requests().len();
    for (nth, reference) in [
        format!("{door}/lab/lab/app:v1"),
        format!("{door}/hub.example/lab/app@{digest}"),
    ]
    .iter()
    .enumerate()
    {
        pulls(|| skopeo_with(&cert_dir, reference, &site.client(&format!("d{nth}"))?))?;
    }
    // Without its certificate the door is nobody's.
    let untrusted = pulls(|| {
        Ok(skopeo_with(
            &[],
            &format!("{door}/lab/lab/app:v1"),
            &site.client("u1")?,
        ))
    })?;
    assert!(format!("{:#}", untrusted.unwrap_err()).contains("certificate"));
    for target in [
        "/v2/lab/app/manifests/v1?ns=hub.example".to_owned(),
        format!("/v2/{}/lab/app/manifests/v1", site.registry.address),
        "/lab/v2/lab/app/manifests/v1".to_owned(),
    ] {
        let said = site.cache.get(&target).await?;
        assert_eq!(said.status, 200, "{target}: {said:?}");
        assert_eq!(
            said.header("docker-content-digest"),
            Some(digest.to_string().as_str())
        );
    }
    let later = &site.registry.requests()[mark..];
    assert_eq!(blobs(later), 0, "{later:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_whose_authority_is_unknown_and_one_that_refuses_the_password_are_said_to_be_so()
-> Result<()> {
    let site = Site::start("", "[upstream.registry]\ntag_ttl = \"0s\"").await?;
    let said = site.cache.get("/v2/lab/lab/app/manifests/v1").await?;
    assert_eq!((said.status, said.code().as_deref()), (502, Some("UNAVAILABLE")));
    let body = String::from_utf8_lossy(&said.body);
    assert!(body.contains("certificate"), "{body}");

    let site = Site::start(
        "",
        "ca_file = \"{folder}/ca.crt\"\n[upstream.registry]\ncredentials_file = \"{folder}/wrong\"",
    )
    .await;
    assert!(
        site.is_err(),
        "a file of credentials that is not there is noticed at the start"
    );

    let site = Site::start("", "ca_file = \"{folder}/ca.crt\"\n[upstream.registry]").await?;
    let said = site.cache.get("/v2/lab/lab/app/manifests/v1").await?;
    assert_eq!((said.status, said.code().as_deref()), (403, Some("DENIED")));
    assert_eq!(said.header("www-authenticate"), None);
    assert_eq!(site.cache.proxy.stats().await?.stored_responses, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn skopeo_logs_in_with_a_password_and_pulls_with_a_token() -> Result<()> {
    let door = "users_file = \"{folder}/users\"\ntoken_lifetime = \"5m\"";
    let site = Site::start(door, OPENED).await?;
    let (door, certs) = (site.door()?, site.certs()?);
    let auth = site.folder.path().join("auth.json");
    let auth = text(&auth)?;
    let login = |password: &str| {
        pulls(|| {
            Ok(command::ok(&[
                "skopeo",
                "login",
                "--cert-dir",
                &certs,
                "--authfile",
                auth,
                "--username",
                "ada",
                "--password",
                password,
                &door,
            ]))
        })
    };
    let refused = login("wrong")?.unwrap_err();
    assert!(
        format!("{refused:#}").contains("invalid username/password"),
        "{refused:#}"
    );
    let reference = format!("{door}/hub.example/lab/app:v1");
    let cert_dir = ["--src-cert-dir", certs.as_str()];
    let nobody = pulls(|| {
        Ok(skopeo_with(
            &[&cert_dir[..], &["--src-no-creds"]].concat(),
            &reference,
            &site.client("n1")?,
        ))
    })?;
    assert!(nobody.is_err(), "nobody has logged in");
    assert_eq!(site.cache.proxy.stats().await?.stored_responses, 0);
    login("opensesame")??;
    let with_auth = [&cert_dir[..], &["--src-authfile", auth]].concat();
    for client in ["s1", "s2"] {
        pulls(|| skopeo_with(&with_auth, &reference, &site.client(client)?))?;
    }
    assert_eq!(blobs(&site.registry.requests()), site.image.blobs().len());
    let log = site.cache.proxy.log();
    assert!(gave_tokens(&site) && !log.contains("opensesame"), "{log}");
    Ok(())
}

/// Whether some client has changed its password for a token, as the challenge says.
fn gave_tokens(site: &Site) -> bool {
    let log = site.cache.proxy.log();
    log.lines().any(|line| line.contains("url=/-/token status=200"))
}

/// Needs root: these programs unpack what they pull.
mod as_root {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn podman_and_containerd_log_in_at_a_door_with_tls() -> Result<()> {
        let door = "users_file = \"{folder}/users\"\ntoken_lifetime = \"5m\"";
        let site = Site::start(door, OPENED).await?;
        let (door, certs) = (site.door()?, site.certs()?);
        let settings = site.cache.folder.path().join("proxy.toml");
        let told = |client: &str| {
            command::ok(&[
                integration_tests::proxy::program()?.to_str().context("UTF-8")?,
                "client-config",
                client,
                "--config",
                text(&settings)?,
                "--server",
                &format!("https://{door}/"),
            ])
        };
        if is_there("podman") {
            let podman_told = pulls(|| told("podman"))?;
            let reference = "hub.example/lab/app:v1";
            let cert_dir = ["--cert-dir", certs.as_str()];
            // `--creds` is for the host in the reference alone, which is another one than the cache: clients log in at the cache.
            let nobody = pulls(|| Ok(podman(&podman_told, &site.client("p1")?, reference, &cert_dir)))?;
            assert!(nobody.is_err(), "nobody has logged in");
            let auth = site.folder.path().join("auth.json");
            let auth_file = ["--authfile", text(&auth)?];
            let user = ["--username", "ada", "--password", "opensesame", door.as_str()];
            pulls(|| command::ok(&[&["podman", "login"], &cert_dir[..], &auth_file, &user].concat()))?;
            let with_auth = [cert_dir, auth_file].concat();
            pulls(|| podman(&podman_told, &site.client("p2")?, reference, &with_auth))?;
            assert!(blobs(&site.registry.requests()) > 0);
        }
        assert!(!is_there("podman") || gave_tokens(&site));
        if is_there("containerd") {
            let (told, folder) = (pulls(|| told("containerd"))?, site.client("c1")?);
            assert!(told.contains("  ca = \"/etc/containerd/certs.d/"), "{told}");
            let certificate = std::fs::read(&site.authority.certificate)?;
            Containerd::put(&folder, "kato-proxy-ca.crt", &certificate)?;
            let Some(containerd) = pulls(|| Containerd::start(&told, &folder))? else {
                return Ok(());
            };
            let wrong = ["--user", "ada:wrong"];
            let refused = pulls(|| Ok(containerd.pull_with(&wrong, "hub.example/lab/app:v1")))?;
            assert!(refused.is_err(), "a wrong password was taken");
            pulls(|| containerd.pull_with(&["--user", ADA_SHOWS], "hub.example/lab/app:v1"))?;
        }
        assert_eq!(blobs(&site.registry.requests()), site.image.blobs().len());
        Ok(())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn docker_logs_in_and_pulls_with_a_token() -> Result<()> {
        if !is_there("dockerd") || !is_there("docker") {
            return Ok(());
        }
        let door = "users_file = \"{folder}/users\"\ntoken_lifetime = \"5m\"";
        let site = Site::start(door, OPENED).await?;
        // Daemons take the address of this machine for one without TLS, whatever they are told: so this is the door in clear.
        let clear = site.cache.proxy.data.to_string();
        let told = String::from_utf8(site.cache.get("/-/setup/docker").await?.body)?;
        let Some(docker) = pulls(|| Docker::start(&told, &site.client("k1")?))? else {
            return Ok(());
        };
        let reference = format!("{clear}/hub.example/lab/app:v1");
        let nobody = pulls(|| Ok(docker.pull(&reference)))?;
        assert!(nobody.is_err(), "nobody has logged in");
        let wrong = pulls(|| Ok(docker.login(&clear, ("ada", "wrong"))))?;
        assert!(wrong.is_err(), "a wrong password was taken");
        pulls(|| docker.login(&clear, ("ada", "opensesame")))?;
        pulls(|| docker.pull(&reference))?;
        assert!(blobs(&site.registry.requests()) > 0 && gave_tokens(&site));
        Ok(())
    }
}
