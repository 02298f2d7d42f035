//! Request heads by hyper's rules, then what the pipeline does before anything is asked: host, route, key, hop-by-hop fields.

use std::{
    convert::Infallible,
    sync::{LazyLock, Mutex, PoisonError},
};

use http::{HeaderMap, Method, Request, Response, Uri, header};
use http_body_util::Empty;
use hyper::{body::Bytes, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use kato_proxy::{
    key::CacheKey,
    policy::headers::{has_valid_host, strip_hop_by_hop},
    route::{Route, Router, Target},
    settings::Settings,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, duplex},
    runtime::Runtime,
};
use url::Url;

/// More than the proxy takes of a head.
const ROOM: usize = 256 << 10;

static ROUTER: LazyLock<Router> = LazyLock::new(|| {
    let upstreams = [
        "pkg=https://pkg.example/,https://mirror.example/stackato/",
        "deb=http://deb.example/debian/",
        "security=http://deb.example/debian/security/",
        "local=http://127.0.0.1:8000/",
        "inner=http://user:secret@inner.example/p%20q/",
    ];
    Router::new(&Settings {
        upstreams: upstreams.iter().filter_map(|flag| flag.parse().ok()).collect(),
        ..Settings::default()
    })
});

/// One event loop for all inputs; the targets run one after the other.
static LOOP: LazyLock<Mutex<Runtime>> = LazyLock::new(|| {
    Mutex::new(
        tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("an event loop without I/O"),
    )
});

/// The bytes that a client sends on a connection.
pub fn request_head(data: &[u8]) {
    if data.len() > ROOM / 2 {
        return;
    }
    let event_loop = LOOP.lock().unwrap_or_else(PoisonError::into_inner);
    event_loop.block_on(async {
        let (mut client, far_end) = duplex(ROOM);
        client.write_all(data).await.expect("the room is enough");
        client.shutdown().await.expect("a pipe");
        let service = service_fn(|request: Request<Incoming>| async move {
            judged(&request);
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        });
        let (served, answers) = tokio::join!(
            http1::Builder::new()
                .half_close(true)
                .serve_connection(TokioIo::new(far_end), service),
            async {
                let mut answers = Vec::new();
                let _whole_or_reset = client.read_to_end(&mut answers).await;
                answers
            }
        );
        drop(served);
        assert!(
            answers.is_empty() || answers.starts_with(b"HTTP/1."),
            "an answer is HTTP"
        );
    });
}

fn judged<B>(request: &Request<B>) {
    let (method, uri) = (request.method(), request.uri());
    if has_valid_host(request.version(), request.headers()) {
        let hosts: Vec<_> = request.headers().get_all(header::HOST).iter().collect();
        assert!(hosts.len() <= 1);
        assert!(hosts.iter().all(|host| !host.as_bytes().contains(&b'@')));
    }
    forwarded(request.headers());
    match ROUTER.route(method, uri) {
        Ok(Route::Target(target)) => routed(&target, method),
        Ok(Route::RegistryBase) => assert!(uri.path().starts_with("/v2"), "{uri}"),
        Ok(Route::Tunnel { host, .. } | Route::Intercept { host, .. }) => {
            assert_eq!(*method, Method::CONNECT);
            assert!(HOSTS.contains(&host.as_str()), "{host}");
        }
        Err(error) => assert!(!error.to_string().contains("secret") || uri.to_string().contains("secret")),
    }
}

/// The hosts of [`ROUTER`].
const HOSTS: [&str; 5] = [
    "pkg.example",
    "mirror.example",
    "deb.example",
    "127.0.0.1",
    "inner.example",
];

/// "Fields that the Connection field names, and that field itself, end at the next hop" (RFC 9110 §7.6.1).
fn forwarded(received: &HeaderMap) {
    let mut headers = received.clone();
    strip_hop_by_hop(&mut headers);
    for name in [
        header::CONNECTION,
        header::TRANSFER_ENCODING,
        header::TE,
        header::UPGRADE,
        header::TRAILER,
    ] {
        assert!(!headers.contains_key(name));
    }
    for (name, value) in &headers {
        assert!(
            !value
                .as_bytes()
                .iter()
                .any(|byte| matches!(byte, b'\r' | b'\n' | 0)),
            "{name}"
        );
    }
    let once = headers.clone();
    strip_hop_by_hop(&mut headers);
    assert_eq!(headers, once);
}

fn routed(target: &Target, method: &Method) {
    assert!(!target.candidates.is_empty());
    for url in &target.candidates {
        assert!(HOSTS.contains(&url.host_str().unwrap_or_default()), "{url}");
        let text = url.as_str();
        assert!(
            text.bytes().all(|byte| (b'!'..=b'~').contains(&byte)),
            "{text:?} goes into a request line"
        );
        assert!(url.fragment().is_none());
        // What a server could understand as leaving the folder was resolved before the base URL was checked.
        let mut segments = url.path_segments().into_iter().flatten();
        assert!(
            !segments.any(|segment| matches!(
                segment.to_ascii_lowercase().replace("%2e", ".").as_str(),
                "." | ".."
            )),
            "{text}"
        );
    }
    let first = &target.candidates[0];
    let key = &target.key;
    assert_eq!(
        key.to_string().parse::<CacheKey>().as_ref(),
        Ok(key),
        "a key is read back"
    );
    let authority = key
        .uri()
        .parse::<Uri>()
        .ok()
        .and_then(|uri| uri.authority().cloned());
    assert!(
        authority.is_some_and(|authority| !authority.as_str().contains('@')),
        "{key}"
    );
    assert!(is_same_target(first, key.uri()), "{first} has the key {key}");
    let base = target.upstream.urls.first().map_or("/", |base| base.url().path());
    let below_base = first.path().strip_prefix(base).unwrap_or(first.path());
    assert_eq!(
        target.path, below_base,
        "rules are looked up by the path that is asked for"
    );
    // The key as a forward proxy's target leads to itself: there is one key for a target, whatever the door.
    if matches!(*method, Method::GET | Method::HEAD) {
        let uri: Uri = key.uri().parse().expect("a key is a URI");
        match ROUTER.route(&Method::GET, &uri) {
            Ok(Route::Target(again)) => assert_eq!(again.key, *key),
            other => panic!("{key} leads to {other:?}"),
        }
    }
}

/// Whether the key's text is the target, but for the escapes of characters that need none (RFC 3986 §6.2.2).
fn is_same_target(url: &Url, key: &str) -> bool {
    let mut plain = url.clone();
    let _there_is_a_host = plain.set_username("").and_then(|()| plain.set_password(None));
    canonical(plain.as_str()) == canonical(key)
}

fn canonical(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b'%'
            && let (Some(high), Some(low)) = (digit(at + 1), digit(at + 2))
        {
            let byte = u8::try_from(high * 16 + low).unwrap_or_default();
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                out.push(byte);
            } else {
                out.extend(format!("%{byte:02X}").bytes());
            }
            at += 3;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    out
}
