//! The whole proxy in this process, on loopback, against a scripted origin.
#![expect(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    reason = "a test that cannot go on stops"
)]

mod bulk;
mod caching;
mod collapse;
mod connections;
mod doors;
mod failures;
mod front;
mod groups;
mod http2;
mod interim;
mod learned;
mod leaving;
mod limits;
mod origin;
mod raw;
mod redirects;
mod reload;
mod resuming;
mod sharing;
mod storing;
mod tls;
mod tls_origin;
mod upstreams;

use std::{net::SocketAddr, path::Path, time::Duration};

use kato_proxy::{
    App,
    reload::Reloader,
    settings::{Listen, Settings},
};
use kato_shared::{clock::Clock, settings::ByteSize};
use reqwest::{Client, Response};
use tokio::{task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

/// Whatever a test waits for happens within this time, or the test has failed.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// A running proxy with a store of its own.
pub struct Proxy {
    pub address: SocketAddr,
    /// Where TLS is, when the settings ask for it.
    pub tls: Option<SocketAddr>,
    pub admin: SocketAddr,
    pub client: Client,
    /// Replaces the settings, of which these were in force at the start.
    pub reloader: Reloader,
    pub settings: Settings,
    stop: CancellationToken,
    serving: JoinSet<()>,
    pub dir: tempfile::TempDir,
}

/// Settings for one upstream named `o`, with a store in `dir`.
pub fn settings(dir: &Path, origin: SocketAddr) -> Settings {
    let mut settings = Settings {
        listen: Listen {
            data: ([127, 0, 0, 1], 0).into(),
            tls: None,
            public_url: None,
            admin: ([127, 0, 0, 1], 0).into(),
            admin_socket: None,
        },
        upstreams: vec![format!("o=http://{origin}/").parse().unwrap()],
        ..Settings::default()
    };
    dir.clone_into(&mut settings.cache.dir);
    settings.cache.min_free = ByteSize::new(0);
    settings
}

impl Proxy {
    pub async fn start(origin: SocketAddr) -> Self {
        Self::with(origin, |_| {}).await
    }

    pub async fn with(origin: SocketAddr, change: impl FnOnce(&mut Settings)) -> Self {
        Self::in_folder(tempfile::tempdir().unwrap(), origin, change).await
    }

    pub async fn in_folder(
        dir: tempfile::TempDir,
        origin: SocketAddr,
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        let _installed_once = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut settings = settings(dir.path(), origin);
        change(&mut settings);
        let app = App::build(settings.clone(), Clock::system()).await.unwrap();
        let (address, tls, admin) = (app.data_address, app.tls_address, app.admin_address);
        let reloader = app.reloader();
        let stop = CancellationToken::new();
        let mut serving = JoinSet::new();
        serving.spawn(app.serve(stop.clone()));
        Self {
            address,
            tls,
            admin,
            reloader,
            settings,
            client: Client::builder()
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                .build()
                .unwrap(),
            stop,
            serving,
            dir,
        }
    }

    /// Stops it and gives its folder back.
    pub async fn stop(mut self) -> tempfile::TempDir {
        self.stop.cancel();
        timeout(DEADLINE, self.serving.join_next()).await.unwrap();
        self.dir
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}/o{path}", self.address)
    }

    pub async fn get(&self, path: &str) -> Response {
        self.with_fields(path, &[]).await
    }

    pub async fn with_fields(&self, path: &str, fields: &[(&str, &str)]) -> Response {
        let mut request = self.client.get(self.url(path));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        timeout(DEADLINE, request.send()).await.unwrap().unwrap()
    }

    pub async fn stats(&self) -> kato_shared::api::Stats {
        let url = format!("http://{}/-/api/stats", self.admin);
        let body = self.client.get(url).send().await.unwrap().bytes().await.unwrap();
        serde_json::from_slice(&body).unwrap()
    }
}

/// The field's first value, or nothing.
pub fn field<'r>(response: &'r Response, name: &str) -> &'r str {
    response
        .headers()
        .get(name)
        .map_or("", |value| value.to_str().unwrap())
}

pub async fn body(response: Response) -> Vec<u8> {
    timeout(DEADLINE, response.bytes())
        .await
        .unwrap()
        .unwrap()
        .to_vec()
}

/// Bytes that do not repeat soon.
pub fn content(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .flatten()
    .take(length)
    .collect()
}

/// Waits until `holds`; fails the test when it does not in time.
pub async fn wait_until(what: &str, holds: impl AsyncFn() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::task::yield_now().await;
        }
    };
    assert!(timeout(DEADLINE, waiting).await.is_ok(), "in vain: {what}");
}
