//! A real registry on loopback, with a log of what it was asked, and tokens that it believes.

use std::{
    fmt::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD, Engine as _};
use kato_shared::{Digest, clock::Clock, durable};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{authority::Pair, command, lab::Background, wait};

/// Long beside a start on a busy machine.
const SOON: Duration = Duration::from_secs(20);
/// What the registry calls itself towards a token service.
pub const SERVICE: &str = "lab-registry";
const ISSUER: &str = "lab-issuer";

/// A running `docker-registry`; it ends when it is dropped.
#[derive(Debug)]
pub struct Registry {
    /// Where it listens.
    pub address: SocketAddr,
    storage: PathBuf,
    process: Background,
}

/// One answered request of the registry's log.
#[derive(Debug, Clone, Deserialize)]
pub struct Answered {
    /// The method.
    #[serde(rename = "http.request.method")]
    pub method: String,
    /// Path and query.
    #[serde(rename = "http.request.uri")]
    pub uri: String,
    /// The status code.
    #[serde(rename = "http.response.status")]
    pub status: u16,
}

impl Answered {
    /// Whether the content of a blob was sent.
    pub fn is_blob(&self) -> bool {
        self.method == "GET" && self.uri.contains("/blobs/") && self.status == 200
    }
}

impl Registry {
    /// Starts a registry over the storage in `folder`, which keeps what earlier ones were given.
    ///
    /// # Errors
    /// When it does not listen soon, or is not installed; its log is in the message.
    pub fn start(folder: &Path, tokens: Option<&Tokens>) -> Result<Self> {
        let auth = tokens.map(Tokens::demanded).unwrap_or_default();
        Self::start_with(folder, None, &auth)
    }

    /// Starts one that wants name and password themselves, those of a file as `htpasswd -B` writes it, maybe behind TLS.
    ///
    /// # Errors
    /// As [`Registry::start`].
    pub fn start_for_users(folder: &Path, tls: Option<&Pair>, users: &Path) -> Result<Self> {
        let users = users.display();
        let auth = format!("auth:\n  htpasswd:\n    realm: lab\n    path: {users}\n");
        Self::start_with(folder, tls, &auth)
    }

    /// Starts one behind TLS, open to everybody or to those with a token.
    ///
    /// # Errors
    /// As [`Registry::start`].
    pub fn start_with_tls(folder: &Path, tls: &Pair, tokens: Option<&Tokens>) -> Result<Self> {
        let auth = tokens.map(Tokens::demanded).unwrap_or_default();
        Self::start_with(folder, Some(tls), &auth)
    }

    fn start_with(folder: &Path, tls: Option<&Pair>, auth: &str) -> Result<Self> {
        let storage = folder.join("storage");
        std::fs::create_dir_all(&storage)?;
        let mut settings = format!(
            "version: 0.1\nlog:\n  level: info\n  formatter: json\n  accesslog:\n    disabled: true\n\
             storage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:0\n  secret: lab\n",
            storage.display()
        );
        if let Some(Pair { certificate, key }) = tls {
            let (certificate, key) = (certificate.display(), key.display());
            writeln!(settings, "  tls:\n    certificate: {certificate}\n    key: {key}")?;
        }
        settings.push_str(auth);
        let file = folder.join("registry.yml");
        durable::write(&file, settings.as_bytes(), 0o600)?;
        let mut registry = command::new("docker-registry");
        registry.arg("serve").arg(&file);
        let process = Background::start(registry, folder)?;
        let address = wait::until("the registry listens", SOON, || listening(&process.log()))
            .with_context(|| process.log())?;
        Ok(Self {
            address,
            storage,
            process,
        })
    }

    /// Every answered request so far.
    pub fn requests(&self) -> Vec<Answered> {
        let log = self.process.log();
        log.lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    /// Has `tag` of `repository` stand for the manifest `digest`, which it holds, as a push would.
    ///
    /// # Errors
    /// When the file of the tag cannot be written.
    pub fn move_tag(&self, repository: &str, tag: &str, digest: &Digest) -> Result<()> {
        let link = format!("docker/registry/v2/repositories/{repository}/_manifests/tags/{tag}/current/link");
        let link = self.storage.join(link);
        Ok(durable::write(&link, digest.to_string().as_bytes(), 0o644)?)
    }

    /// The file in which it keeps the blob `hex` (of SHA-256).
    pub fn blob_file(&self, hex: &str) -> PathBuf {
        let below = "docker/registry/v2/blobs/sha256";
        self.storage.join(below).join(&hex[..2]).join(hex).join("data")
    }
}

/// The address in the line with which the registry says that it listens.
fn listening(log: &str) -> Option<SocketAddr> {
    log.lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find_map(|line| {
            let address = line["msg"].as_str()?.strip_prefix("listening on ")?;
            address.trim_end_matches(", tls").parse().ok()
        })
}

/// Who signs tokens that a registry believes.
#[derive(Debug)]
pub struct Tokens {
    realm: String,
    certificate: PathBuf,
    der: Vec<u8>,
    key: EcdsaKeyPair,
}

impl Tokens {
    /// A signer whose tokens are fetched at `realm`; its certificate goes into `folder`.
    ///
    /// # Errors
    /// When the key cannot be made or the certificate not be written.
    pub fn new(folder: &Path, realm: &str) -> Result<Self> {
        let made = rcgen::generate_simple_self_signed(vec!["token.example".to_owned()])?;
        let certificate = folder.join("token.pem");
        durable::write(&certificate, made.cert.pem().as_bytes(), 0o600)?;
        let key = EcdsaKeyPair::from_pkcs8(
            &ECDSA_P256_SHA256_FIXED_SIGNING,
            &made.signing_key.serialize_der(),
        )
        .context("the key is not of P-256")?;
        Ok(Self {
            realm: realm.to_owned(),
            certificate,
            der: made.cert.der().to_vec(),
            key,
        })
    }

    /// The settings of a registry that wants such a token for everything.
    fn demanded(&self) -> String {
        let (realm, certificate) = (&self.realm, self.certificate.display());
        format!(
            "auth:\n  token:\n    realm: {realm}\n    service: {SERVICE}\n    issuer: {ISSUER}\n    \
             rootcertbundle: {certificate}\n"
        )
    }

    /// The answer of a token service: a token to pull from `repository`, good for `lifetime`.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn answer(&self, repository: &str, lifetime: Duration) -> Result<String> {
        let now = Clock::system().now().as_second();
        let seconds = i64::try_from(lifetime.as_secs())?;
        let header = json!({ "typ": "JWT", "alg": "ES256", "x5c": [BASE64_STANDARD.encode(&self.der)] });
        let claims = json!({
            "iss": ISSUER, "sub": "", "aud": SERVICE, "iat": now, "nbf": now - 60, "exp": now + seconds, "jti": "1",
            "access": [{ "type": "repository", "name": repository, "actions": ["pull"] }],
        });
        let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(&claims));
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes());
        let signature = signature.ok().context("the token cannot be signed")?;
        let token = format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature));
        Ok(json!({ "token": token, "expires_in": seconds }).to_string())
    }
}
