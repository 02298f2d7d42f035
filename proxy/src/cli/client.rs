//! Verbs that ask the running proxy's admin API: `stats`, `ls`, `show`, `purge`, `verify`.

use http::Method;
use kato_shared::{api::Stats, settings::byte_size::human};
use serde::de::DeserializeOwned;

use super::{AdminArgs, fail, print};
use crate::{
    admin::{EntryPage, EntryView, PurgeReport, VerifyReport},
    exit,
    origin::admin_call,
};

/// `stats`.
pub(super) fn stats(args: &AdminArgs) -> u8 {
    call(args, &Method::GET, "/-/api/stats", &[], |stats: Stats| {
        let requests = &stats.requests;
        print(&format!(
            "from upstreams   {:>12}   {} requests\nto clients       {:>12}\nstored           {:>12}   {} URLs\n\
             requests         hit {}, miss {}, stale {}, collapsed {}, bypass {}, refused {}, failed {}\n",
            human(stats.wan_bytes),
            stats.upstream_requests,
            human(stats.lan_bytes),
            human(stats.stored_bytes),
            stats.stored_responses,
            requests.hit,
            requests.miss,
            requests.stale,
            requests.collapsed,
            requests.bypass,
            requests.refused,
            requests.failed,
        ));
        exit::DONE
    })
}

/// `ls`: page after page.
pub(super) fn ls(prefix: &str, args: &AdminArgs) -> u8 {
    let mut after = String::new();
    loop {
        let mut next = None;
        let query = [("prefix", prefix), ("after", &after)];
        let code = call(args, &Method::GET, "/-/api/entries", &query, |page: EntryPage| {
            for entry in &page.entries {
                print(&format!(
                    "{:>12}  {}  {}\n",
                    human(entry.length),
                    entry.validated,
                    entry.url
                ));
            }
            next = page.next;
            exit::DONE
        });
        match next {
            Some(url) if code == exit::DONE => after = url,
            _ => return code,
        }
    }
}

/// `show`.
pub(super) fn show(url: &str, args: &AdminArgs) -> u8 {
    call(
        args,
        &Method::GET,
        "/-/api/entries",
        &[("prefix", url), ("limit", "1")],
        |page: EntryPage| {
            let found: Vec<&EntryView> = page.entries.iter().filter(|entry| entry.url == url).collect();
            if found.is_empty() {
                return fail(
                    exit::USAGE,
                    &format!("{url} is not stored\nhint: `kato-proxy ls` lists what is"),
                );
            }
            for entry in found {
                print(&format!(
                    "{}\n  upstream   {}\n  status     {}\n  content    {} bytes, {}\n  validated  {}{}\n",
                    entry.url,
                    entry.upstream,
                    entry.status,
                    entry.length,
                    entry.digest,
                    entry.validated,
                    if entry.invalidated {
                        " (invalidated since)"
                    } else {
                        ""
                    },
                ));
                for (name, value) in &entry.headers {
                    print(&format!("  {name}: {value}\n"));
                }
            }
            exit::DONE
        },
    )
}

/// `purge`.
pub(super) fn purge(prefix: &str, args: &AdminArgs) -> u8 {
    call(
        args,
        &Method::POST,
        "/-/api/purge",
        &[("prefix", prefix)],
        |report: PurgeReport| {
            print(&format!("{} forgotten\n", report.purged));
            exit::DONE
        },
    )
}

/// `verify`.
pub(super) fn verify(args: &AdminArgs) -> u8 {
    call(
        args,
        &Method::POST,
        "/-/api/verify",
        &[],
        |report: VerifyReport| {
            for digest in &report.unnamed {
                print(&format!("unnamed  {digest}\n"));
            }
            for damage in &report.damaged {
                print(&format!(
                    "damaged  {}  {}\n",
                    damage.digest,
                    damage.urls.join(" ")
                ));
            }
            print(&format!(
                "{} contents, {} read; {} damaged, {} unnamed\n",
                report.checked,
                human(report.bytes),
                report.damaged.len(),
                report.unnamed.len()
            ));
            if report.damaged.is_empty() {
                exit::DONE
            } else {
                exit::VERIFICATION_FAILED
            }
        },
    )
}

/// Asks the API and hands the answer to `show`, or prints it as it came.
fn call<T: DeserializeOwned>(
    args: &AdminArgs,
    method: &Method,
    path: &str,
    query: &[(&str, &str)],
    show: impl FnOnce(T) -> u8,
) -> u8 {
    let document = match admin_call(args.admin, method, path, query) {
        Ok(document) => document,
        Err(error) => return fail(exit::TRY_AGAIN, &error),
    };
    match serde_json::from_slice::<T>(&document) {
        Ok(value) if !args.json => show(value),
        Ok(_) => {
            print(&format!("{}\n", String::from_utf8_lossy(&document)));
            exit::DONE
        }
        Err(error) => fail(
            exit::BUG,
            &format!("the answer of {path} is not understood: {error}"),
        ),
    }
}
