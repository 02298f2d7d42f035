//! A file from the repository into the staging folder: resumed, verified, durable.
//!
//! Loop: continue the partial file → when whole, give the verdict → wrong bytes that were spliced together from two
//! exchanges get one fresh start, wrong bytes from one exchange are an error that names both digests.

use std::path::{Path, PathBuf};

use kato_shared::{durable, trust::TargetFile, verify::VerifyError};

use super::{
    FetchError, Fetcher, error,
    exchange::{self, Answer, Failed, Resume, Retry, SoFar},
    pace::Pace,
    page,
    part::{self, Part},
    retry::Retries,
};

type Progress<'a> = &'a (dyn Fn(u64, u64) + Sync);

/// See [`Fetcher::download`].
pub(super) async fn run(
    fetcher: &Fetcher,
    file: &TargetFile,
    staging: &Path,
    progress: Progress<'_>,
) -> Result<PathBuf, FetchError> {
    durable::create_folder(staging).map_err(|error| part::lift(error, file.size))?;
    let whole = staging.join(file.digest.hex());
    if part::is_whole(&whole, file).await? {
        progress(file.size, file.size);
        return Ok(whole);
    }
    let mut part = Part::open(file, staging).await?;
    part.reserve().await?;
    let mut retries = Retries::new(file.size);
    let mut pace = Pace::new(fetcher.timeouts.floor);
    loop {
        retries.progress(part.received());
        if part.missing() == 0 {
            match part.commit(&whole).await? {
                Ok(()) => {
                    progress(file.size, file.size);
                    return Ok(whole);
                }
                Err(_spliced) if part.is_spliced() && retries.may_restart() => {
                    tracing::warn!(target_name = %file.name, "the parts of a download do not fit together; starting again");
                    part.restart().await?;
                }
                Err(verdict) => return Err(wrong(fetcher, file, &part, verdict)),
            }
        }
        let before = part.taken_in();
        let attempt = receive(fetcher, file, (&mut part, &mut pace), progress).await;
        part.flush().await?;
        retries.spend(part.taken_in() - before);
        if let Err(failed) = attempt {
            retries.progress(part.received());
            again(&mut retries, failed).await?;
        }
    }
}

/// Waits before the next attempt, or gives the failure back.
pub(super) async fn again(retries: &mut Retries, failed: Failed) -> Result<(), FetchError> {
    let wait = match failed.retry {
        Retry::Never => None,
        Retry::Again(after) => retries.again(after),
    };
    let Some(wait) = wait else {
        return Err(failed.error);
    };
    tracing::debug!(error = %kato_shared::chain::Chain(&failed.error), ?wait, "trying again");
    tokio::time::sleep(wait).await;
    Ok(())
}

/// One exchange: asks for what is missing and keeps what arrives.
async fn receive(
    fetcher: &Fetcher,
    file: &TargetFile,
    (part, pace): (&mut Part, &mut Pace),
    progress: Progress<'_>,
) -> Result<(), Failed> {
    let etag = part.etag().map(ToOwned::to_owned);
    let resume = (part.received() > 0).then_some(Resume {
        offset: part.received(),
        etag: etag.as_deref(),
    });
    let is_resumed = resume.is_some();
    let answer = match exchange::send(fetcher, &file.url, resume).await {
        Ok(answer) => answer,
        Err(failed) => {
            // A server that cannot continue (416, or a range of its own choice) is asked for all of it next time.
            if is_resumed && is_range_trouble(&failed.error) {
                part.restart().await?;
            }
            return Err(failed);
        }
    };
    if answer.start == 0 && part.received() > 0 {
        part.restart().await?;
    } else {
        part.continued();
    }
    let url = error::shown(&fetcher.route().resolve(&file.url));
    if let Err(other) = announced(&answer, file, &url) {
        let is_page = page::is_announced(&answer.response);
        return Err(if is_page {
            exchange::page(fetcher, &file.url)
        } else {
            other
        }
        .into());
    }
    part.remember(answer.etag.clone())?;
    let mut response = answer.response;
    let so_far = SoFar::none_of(file.size, is_resumed && answer.start == 0);
    let broken =
        |received, pace: &Pace, why| exchange::broken(fetcher, &url, so_far.with(received), pace, why);
    loop {
        match pace.next(&mut response).await {
            Ok(Some(piece)) => {
                if part.received() == 0 && page::begins(&piece) {
                    return Err(exchange::page(fetcher, &file.url).into());
                }
                if let Err(refused) = part.push(&url, &piece).await {
                    if matches!(refused, FetchError::Size { .. }) {
                        part.discard()?;
                    }
                    return Err(refused.into());
                }
                progress(part.received(), file.size);
            }
            Ok(None) if part.missing() == 0 => return Ok(()),
            Ok(None) => return Err(broken(part.received(), pace, None)),
            Err(why) => return Err(broken(part.received(), pace, Some(why))),
        }
    }
}

/// Refuses a representation of another size than was signed before its body is received.
pub(super) fn announced(answer: &Answer, file: &TargetFile, url: &str) -> Result<(), FetchError> {
    let source = match answer.size {
        Some(size) if size > file.size => VerifyError::TooLong { expected: file.size },
        Some(size) if size < file.size => VerifyError::TooShort {
            expected: file.size,
            received: size,
        },
        _ => return Ok(()),
    };
    Err(FetchError::Size {
        url: url.to_owned(),
        source,
    })
}

pub(super) const fn is_range_trouble(error: &FetchError) -> bool {
    matches!(
        error,
        FetchError::Status {
            status: 206 | 416,
            ..
        }
    )
}

/// The error for a whole file with other bytes; the file is removed.
fn wrong(fetcher: &Fetcher, file: &TargetFile, part: &Part, verdict: VerifyError) -> FetchError {
    part.discard()
        .err()
        .unwrap_or_else(|| wrong_bytes(fetcher, file, verdict))
}

/// The error for other bytes than were signed.
pub(super) fn wrong_bytes(fetcher: &Fetcher, file: &TargetFile, verdict: VerifyError) -> FetchError {
    let url = error::shown(&fetcher.route().resolve(&file.url));
    if let VerifyError::DigestMismatch { expected, received } = verdict {
        FetchError::Mismatch {
            url,
            origin: error::shown(&file.url),
            is_cache: fetcher.route().is_cache(),
            expected,
            received,
        }
    } else {
        FetchError::Size { url, source: verdict }
    }
}
