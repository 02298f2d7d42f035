//! A file through the cache and away: the cache keeps it, this process only checks it, and later that it was kept.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, header};
use kato_shared::{trust::TargetFile, verify::Verifier};
use tokio::time::{Instant, sleep};
use url::Url;

use super::{
    FetchError, Fetcher,
    answers::{self, Source},
    download::{again, announced, wrong_bytes},
    error,
    exchange::{self, Failed, SoFar},
    pace::Pace,
    redirect,
    retry::Retries,
};

/// See [`Fetcher::warm`].
pub(super) async fn run(
    fetcher: &Fetcher,
    file: &TargetFile,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Source, FetchError> {
    let mut retries = Retries::new(file.size);
    let mut pace = Pace::new(fetcher.timeouts.floor);
    loop {
        let mut received = 0;
        let attempt = receive(fetcher, file, (&mut pace, &mut received), progress).await;
        retries.progress(received);
        retries.spend(received);
        match attempt {
            Ok(source) => return Ok(source),
            Err(failed) => again(&mut retries, failed).await?,
        }
    }
}

/// One exchange, from the first byte: what was cut off is in the cache by the next time, so nothing is lost.
async fn receive(
    fetcher: &Fetcher,
    file: &TargetFile,
    (pace, received): (&mut Pace, &mut u64),
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Source, Failed> {
    let mut answer = exchange::send(fetcher, &file.url, None).await?;
    let source = answers::source(answer.response.headers());
    let url = error::shown(&fetcher.route().resolve(&file.url));
    announced(&answer, file, &url)?;
    let mut verifier = Verifier::new(file.size, file.digest);
    // What was cut off is in the cache by the next time.
    let so_far = SoFar::none_of(file.size, false);
    let broken =
        |received, pace: &Pace, why| exchange::broken(fetcher, &url, so_far.with(received), pace, why);
    loop {
        match pace.next(&mut answer.response).await {
            Ok(Some(piece)) => {
                verifier
                    .update(&piece)
                    .map_err(|verdict| wrong_bytes(fetcher, file, verdict))?;
                *received = verifier.received();
                progress(*received);
            }
            Ok(None) if *received < file.size => return Err(broken(*received, pace, None)),
            Ok(None) => break,
            Err(why) => return Err(broken(*received, pace, Some(why))),
        }
    }
    verifier
        .finish()
        .map_err(|verdict| wrong_bytes(fetcher, file, verdict))?;
    Ok(source)
}

/// How often it is asked meanwhile.
const ASK_EVERY: Duration = Duration::from_millis(25);

/// See [`Fetcher::is_kept`].
pub(super) async fn is_kept(fetcher: &Fetcher, url: &Url, end: Instant) -> Result<bool, FetchError> {
    let url = fetcher.route.resolve(url);
    // "only-if-cached": a cache that has nothing answers 504 and asks nobody (RFC 9111 §5.2.1.7). A target's content is
    // named by its digest, so that a stale answer is as good as a fresh one.
    let only = HeaderValue::from_static("only-if-cached, max-stale");
    let fields = HeaderMap::from_iter([(header::CACHE_CONTROL, only)]);
    loop {
        let asked = redirect::follow(fetcher, Method::HEAD, &url, &fields).await;
        let answer = asked.map_err(|failed| failed.error)?.response;
        if answer.status().is_success() && answers::source(answer.headers()) == Source::Store {
            return Ok(true);
        }
        if Instant::now() >= end {
            return Ok(false);
        }
        sleep(ASK_EVERY).await;
    }
}
