//! What broke off is gone on with, what nobody wants is given up, and what is wrong is fetched once more.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use kato_proxy::{
    fill::AbortRule,
    settings::{Kind, Settings},
};
use kato_shared::Digest;
use tokio::{sync::Semaphore, time::timeout};

use crate::{
    DEADLINE, Proxy, body, content, field,
    origin::{Asked, Origin, Step, head, reply},
    wait_until,
};

const FRESH: (&str, &str) = ("Cache-Control", "max-age=3600");
const TAG: (&str, &str) = ("ETag", "\"one\"");

/// Where the range of a request begins; `None` for the whole.
fn first_byte(asked: &Asked) -> Option<usize> {
    let range = asked.field("range")?;
    Some(
        range
            .trim_start_matches("bytes=")
            .trim_end_matches('-')
            .parse()
            .unwrap(),
    )
}

/// The rest of `whole` from `first` on, as a 206.
fn rest(whole: &[u8], first: usize) -> Vec<Step> {
    let part = format!("bytes {first}-{}/{}", whole.len() - 1, whole.len());
    reply(
        "206 Partial Content",
        &[TAG, FRESH, ("Content-Range", &part)],
        &whole[first..],
    )
}

/// The head of a 200 and the first `count` bytes.
fn beginning(whole: &[u8], count: usize) -> Step {
    let head = format!(
        "{}Content-Length: {}\r\n\r\n",
        head("200 OK", &[FRESH, TAG]),
        whole.len()
    );
    Step::Send([head.as_bytes(), &whole[..count]].concat())
}

#[tokio::test]
async fn rfc9111_s3_3_the_next_request_goes_on_where_a_download_broke_off() {
    let whole = content(4 << 20);
    let (sent, at) = (whole.clone(), whole.len() * 2 / 5);
    let is_up = Arc::new(AtomicBool::new(false));
    let up = Arc::clone(&is_up);
    let origin = Origin::start(move |asked| match first_byte(asked) {
        None => vec![beginning(&sent, at), Step::Break],
        Some(_) if !up.load(Ordering::SeqCst) => reply("503 Service Unavailable", &[], b""),
        Some(first) => rest(&sent, first),
    })
    .await;
    let proxy = Proxy::start(origin.address).await;
    let broken = proxy.get("/big").await;
    assert!(timeout(DEADLINE, broken.bytes()).await.unwrap().is_err());
    // Still down: the client hears of that, and what came stays.
    let down = proxy.get("/big").await;
    assert_eq!(down.status(), 503);
    is_up.store(true, Ordering::SeqCst);
    let resumed = proxy.get("/big").await;
    assert_eq!(resumed.status(), 200);
    assert_eq!(field(&resumed, "content-length"), whole.len().to_string());
    assert!(field(&resumed, "content-range").is_empty());
    assert!(body(resumed).await == whole);
    let asked = origin.asked();
    let last = asked.last().unwrap();
    assert_eq!(last.field("range"), Some(format!("bytes={at}-").as_str()));
    assert_eq!(last.field("if-range"), Some("\"one\""));
    let received = proxy.stats().await.wan_bytes;
    assert!(received < whole.len() as u64 * 105 / 100, "{received}");
    // It is stored as a whole.
    let count = origin.count("/big");
    assert!(body(proxy.get("/big").await).await == whole);
    assert_eq!(origin.count("/big"), count);
}

#[tokio::test]
async fn rfc9111_s3_4_what_changed_meanwhile_is_fetched_anew() {
    let (before, after) = (content(1 << 20), vec![7; 1 << 20]);
    let times = AtomicUsize::new(0);
    let new = after.clone();
    let origin = Origin::start(move |asked| match times.fetch_add(1, Ordering::SeqCst) {
        0 => vec![beginning(&before, 500_000), Step::Break],
        1 => reply("404 Not Found", &[], b""),
        // A range of something else, by a server that does not understand `If-Range`.
        2 => {
            let part = format!("bytes 500000-{}/{}", new.len() - 1, new.len());
            let fields = [("ETag", "\"two\""), ("Content-Range", part.as_str())];
            reply("206 Partial Content", &fields, &new[500_000..])
        }
        _ => {
            assert!(asked.field("range").is_none());
            reply("200 OK", &[FRESH, ("ETag", "\"two\"")], &new)
        }
    })
    .await;
    let proxy = Proxy::start(origin.address).await;
    assert!(
        timeout(DEADLINE, proxy.get("/big").await.bytes())
            .await
            .unwrap()
            .is_err()
    );
    assert!(body(proxy.get("/big").await).await == after);
    assert_eq!(origin.count("/big"), 4);
}

/// Cancels downloads that nobody wants, unless `finish` per cent are there.
fn cancelling(finish: u8) -> impl FnOnce(&mut Settings) {
    move |settings| {
        settings.upstreams[0].on_abort = AbortRule::Cancel;
        settings.upstreams[0].on_abort_finish_percent = finish;
    }
}

/// An origin that sends the first half, waits at the gate, and sends the rest; and any range.
async fn halting(whole: Vec<u8>) -> (Origin, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let at = Arc::clone(&gate);
    let origin = Origin::start(move |asked| match first_byte(asked) {
        Some(first) => rest(&whole, first),
        None => vec![
            beginning(&whole, whole.len() / 2),
            Step::Wait(Arc::clone(&at)),
            Step::Send(whole[whole.len() / 2..].to_vec()),
        ],
    })
    .await;
    (origin, gate)
}

/// Reads the first half of `response`.
async fn read_half(response: &mut reqwest::Response, size: usize) {
    let mut received = 0;
    while received < size / 2 {
        let chunk = timeout(DEADLINE, response.chunk())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        received += chunk.len();
    }
}

#[tokio::test]
async fn p04_a_download_that_nobody_wants_is_given_up_by_rule_and_gone_on_with_later() {
    let whole = content(4 << 20);
    let (sent, gate) = (whole.clone(), Arc::new(Semaphore::new(0)));
    let at = Arc::clone(&gate);
    // Half at once, then a little for each permit: that a client has gone shows when something is sent to it.
    let origin = Origin::start(move |asked| {
        if let Some(first) = first_byte(asked) {
            return rest(&sent, first);
        }
        let mut steps = vec![beginning(&sent, sent.len() / 2)];
        for piece in sent[sent.len() / 2..].chunks(4 << 10) {
            steps.push(Step::Wait(Arc::clone(&at)));
            steps.push(Step::Send(piece.to_vec()));
        }
        steps
    })
    .await;
    let proxy = Proxy::with(origin.address, cancelling(95)).await;
    let mut only = proxy.get("/big").await;
    read_half(&mut only, whole.len()).await;
    drop(only);
    wait_until("the download is given up", async || {
        gate.add_permits(1);
        let url = format!("http://{}/-/metrics", proxy.admin);
        let page = proxy.client.get(url).send().await.unwrap().text().await.unwrap();
        page.lines()
            .any(|line| line.contains("\"deserted\"") && line.ends_with(" 1"))
    })
    .await;
    assert!(body(proxy.get("/big").await).await == whole);
    let asked = origin.asked();
    assert_eq!(asked.len(), 2);
    assert!(first_byte(&asked[1]).unwrap() >= whole.len() / 2);
    let received = proxy.stats().await.wan_bytes;
    assert!(received < whole.len() as u64 * 105 / 100, "{received}");
}

#[tokio::test]
async fn p04_a_download_is_handed_on_to_whoever_is_attached() {
    let whole = content(4 << 20);
    let (origin, gate) = halting(whole.clone()).await;
    let proxy = Proxy::with(origin.address, cancelling(90)).await;
    let mut leader = proxy.get("/big").await;
    read_half(&mut leader, whole.len()).await;
    let follower = proxy.get("/big").await;
    drop(leader);
    gate.add_permits(1);
    assert!(body(follower).await == whole);
    assert_eq!(origin.count("/big"), 1);
}

#[tokio::test]
async fn p04_a_download_that_is_nearly_done_is_finished_for_nobody() {
    let whole = content(4 << 20);
    let (origin, gate) = halting(whole.clone()).await;
    let proxy = Proxy::with(origin.address, cancelling(50)).await;
    let mut only = proxy.get("/big").await;
    read_half(&mut only, whole.len()).await;
    drop(only);
    gate.add_permits(1);
    wait_until("the response is stored", async || {
        proxy.stats().await.stored_responses == 1
    })
    .await;
    assert_eq!(origin.count("/big"), 1);
}

/// A path that promises the digest of `content`.
fn promising(content: &[u8]) -> String {
    format!("/dists/s/by-hash/SHA256/{}", Digest::of(content).hex())
}

fn packages(settings: &mut Settings) {
    settings.upstreams[0].kind = Kind::Packages;
}

#[tokio::test]
async fn content_other_than_promised_is_fetched_again_past_the_caches() {
    for size in [1000, 1 << 20] {
        let right = content(size);
        let path = promising(&right);
        let sent = right.clone();
        let origin = Origin::start(move |asked| {
            let is_first = asked.field("cache-control").is_none();
            let wrong = vec![7; sent.len()];
            reply("200 OK", &[FRESH], if is_first { &wrong } else { &sent })
        })
        .await;
        let proxy = Proxy::with(origin.address, packages).await;
        let first = timeout(DEADLINE, proxy.get(&path).await.bytes()).await.unwrap();
        // A client that was sent something already hears of it by a broken connection, never by a whole body.
        assert!(first.as_ref().map_or(size > 1000, |got| *got == right), "{size}");
        assert!(body(proxy.get(&path).await).await == right, "{size}");
        assert_eq!(origin.count(&path), 2, "{size}");
    }
}

#[tokio::test]
async fn content_that_is_wrong_twice_is_never_stored_and_the_problem_names_both_digests() {
    let right = content(1000);
    let path = promising(&right);
    let origin = Origin::start(|_| reply("200 OK", &[FRESH], b"wrong")).await;
    let proxy = Proxy::with(origin.address, packages).await;
    let refused = proxy.get(&path).await;
    assert_eq!(refused.status(), 502);
    let problem: kato_shared::api::Problem = serde_json::from_slice(&body(refused).await).unwrap();
    assert_eq!(problem.kind, "urn:kato:problem:digest-mismatch");
    for digest in [Digest::of(&right), Digest::of(b"wrong")] {
        assert!(problem.detail.contains(&digest.hex()), "{}", problem.detail);
    }
    assert_eq!(
        (origin.count(&path), proxy.stats().await.stored_responses),
        (2, 0)
    );
}

/// Serves ranges with both ends, and the whole.
fn ranged(whole: &[u8], asked: &Asked) -> Vec<Step> {
    let Some((first, last)) = asked
        .field("range")
        .and_then(|range| range.strip_prefix("bytes=")?.split_once('-'))
    else {
        return reply("200 OK", &[FRESH, TAG], whole);
    };
    let first: usize = first.parse().unwrap();
    let last = if last.is_empty() {
        whole.len() - 1
    } else {
        last.parse().unwrap()
    };
    let part = format!("bytes {first}-{last}/{}", whole.len());
    reply(
        "206 Partial Content",
        &[TAG, ("Content-Range", &part)],
        &whole[first..=last],
    )
}

fn parallel(settings: &mut Settings) {
    settings.upstreams[0].parallel = 3;
    settings.upstreams[0].parallel_min_size = "1MiB".parse().unwrap();
}

#[tokio::test]
async fn a_large_body_comes_over_several_connections_and_is_the_same() {
    let whole = content(21 << 20);
    let sent = whole.clone();
    let origin = Origin::start(move |asked| ranged(&sent, asked)).await;
    let proxy = Proxy::with(origin.address, parallel).await;
    assert!(body(proxy.get("/big").await).await == whole);
    // The first segment by the whole, the others by ranges that do not overlap.
    let mut firsts: Vec<_> = origin
        .asked()
        .iter()
        .filter_map(|asked| {
            asked
                .field("range")?
                .strip_prefix("bytes=")?
                .split_once('-')?
                .0
                .parse::<usize>()
                .ok()
        })
        .collect();
    firsts.sort_unstable();
    assert_eq!(firsts, [4 << 20, 8 << 20, 12 << 20, 16 << 20, 20 << 20]);
    wait_until("the response is stored", async || {
        proxy.stats().await.stored_responses == 1
    })
    .await;
    assert!(body(proxy.get("/big").await).await == whole);
    assert_eq!(origin.count("/big"), 6);
}

#[tokio::test]
async fn an_origin_that_stops_to_serve_ranges_is_read_over_one_connection() {
    let whole = content(21 << 20);
    for refused in 1..4 {
        // For a while, and for ever.
        for is_forever in [false, true] {
            let sent = whole.clone();
            let times = AtomicUsize::new(0);
            let origin = Origin::start(move |asked| match times.fetch_add(1, Ordering::SeqCst) {
                nth if is_forever && nth >= refused => reply("200 OK", &[FRESH, TAG], &sent),
                nth if nth == refused || nth == refused + 1 => reply("503 Service Unavailable", &[], b""),
                _ => ranged(&sent, asked),
            })
            .await;
            let proxy = Proxy::with(origin.address, parallel).await;
            let came = body(proxy.get("/big").await).await;
            assert!(came == whole, "{refused} {is_forever}: {} bytes", came.len());
        }
    }
}
