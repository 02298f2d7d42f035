//! Verbs that ask the running proxy's admin API: `stats`, `ls`, `show`, `purge`, `invalidate`, `verify`.

use http::Method;
use kato_shared::{api::Stats, settings::byte_size::human};
use serde::de::DeserializeOwned;

use super::{
    admin::{AdminArgs, ListArgs, SelectArgs, ShowArgs},
    fail, print,
};
use crate::{
    admin::{EntryPage, EntryView, Explanation, SelectionReport, ShowPage, VerifyReport, for_people},
    exit,
    origin::{AdminFailure, admin_call},
};

/// Entries asked for at a time.
const PAGE: usize = 1000;

/// `stats`.
pub(super) fn stats(args: &AdminArgs) -> u8 {
    call(args, &Method::GET, "/-/api/stats", &[], |stats: Stats| {
        let requests = &stats.requests;
        print(&format!(
            "from upstreams   {:>12}   {} requests\nto clients       {:>12}\npast the store   {:>12}   through tunnels\nstored           {:>12}   {} URLs\n\
             requests         hit {}, miss {}, stale {}, collapsed {}, bypass {}, refused {}, failed {}\n",
            human(stats.wan_bytes),
            stats.upstream_requests,
            human(stats.lan_bytes),
            human(stats.tunnel_bytes),
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
pub(super) fn ls(args: &ListArgs) -> u8 {
    let mut after = String::new();
    let mut left = args.limit.unwrap_or(usize::MAX);
    loop {
        let mut next = None;
        let limit = left.min(PAGE).to_string();
        let mut query = vec![
            ("prefix", args.prefix.as_str()),
            ("after", &after),
            ("sort", &args.sort),
            ("limit", &limit),
        ];
        let filters = [
            ("upstream", &args.upstream),
            ("digest", &args.digest),
            ("status", &args.status),
        ];
        query.extend(
            filters
                .into_iter()
                .filter_map(|(name, value)| Some((name, value.as_deref()?))),
        );
        let code = call(
            &args.admin,
            &Method::GET,
            "/-/api/entries",
            &query,
            |page: EntryPage| {
                for entry in &page.entries {
                    print(&format!(
                        "{:>12}  {}  {}  {}{}{}\n",
                        human(entry.length),
                        entry.status,
                        entry.validated,
                        entry.url,
                        if entry.pinned { "  pinned" } else { "" },
                        believed(entry)
                    ));
                }
                left = left.saturating_sub(page.entries.len());
                next = page.next;
                exit::DONE
            },
        );
        match next {
            Some(url) if code == exit::DONE && left > 0 => after = url,
            _ => return code,
        }
    }
}

/// Until when a tag is believed, or was, for the end of a line; empty for what is no name of a registry.
fn believed(entry: &EntryView) -> String {
    let until = entry.believed_until;
    until.map_or_else(String::new, |until| format!("  believed until {until}"))
}

/// `show`.
pub(super) fn show(args: &ShowArgs) -> u8 {
    let query: Vec<_> = std::iter::once(("url", args.url.as_str()))
        .chain(args.field.iter().map(|field| ("field", field.as_str())))
        .collect();
    call(
        &args.admin,
        &Method::GET,
        "/-/api/show",
        &query,
        |page: ShowPage| {
            if page.responses.is_empty() {
                return fail(
                    exit::USAGE,
                    &format!("{} is not stored\nhint: `kato-proxy ls` lists what is", page.url),
                );
            }
            print(&shown(&page));
            exit::DONE
        },
    )
}

/// A page of `show` for people.
fn shown(page: &ShowPage) -> String {
    let upstream = page.upstream.as_deref().unwrap_or("none that is configured now");
    let mut lines = vec![page.url.clone(), format!("  upstream   {upstream}")];
    lines.extend(page.mirrors.iter().map(|mirror| format!("  asked at   {mirror}")));
    lines.push(format!("  now        {}", page.now));
    lines.extend(page.responses.iter().flat_map(explanation));
    lines.join("\n") + "\n"
}

fn explanation(one: &Explanation) -> Vec<String> {
    let entry = &one.entry;
    let when = |is: bool, text: &'static str| if is { text } else { "" };
    let mut lines = vec![
        String::new(),
        format!(
            "  response   {}{}, from {}",
            entry.status,
            when(one.selected, ", selected by the request"),
            entry.upstream
        ),
        format!(
            "  content    {} bytes, {}{}{}",
            entry.length,
            entry.digest,
            when(one.known_digest, ", known in advance"),
            when(entry.pinned, ", pinned")
        ),
        format!(
            "  state      {}: age {}, lifetime {}, left {}",
            one.state,
            for_people(one.age_secs),
            for_people(one.lifetime_secs),
            for_people(one.ttl_secs)
        ),
        format!(
            "  rule       {}{}",
            one.rule,
            believed(entry).replacen("  ", "; ", 1)
        ),
        format!(
            "  validated  {}{}",
            entry.validated,
            when(!one.has_validator, ", no validator")
        ),
    ];
    let selecting = entry.vary.iter();
    lines.extend(
        selecting
            .map(|(name, value)| format!("  selects    {name}: {}", value.as_deref().unwrap_or("(absent)"))),
    );
    lines.extend(
        entry
            .headers
            .iter()
            .map(|(name, value)| format!("  {name}: {value}")),
    );
    lines
}

/// `purge` and `invalidate`.
pub(super) fn select(path: &str, args: &SelectArgs) -> u8 {
    call(
        &args.admin,
        &Method::POST,
        path,
        &args.query(),
        |report: SelectionReport| {
            if report.selected == 0 {
                return fail(
                    exit::USAGE,
                    "nothing that is stored matches\nhint: `kato-proxy ls` lists what is stored; --prefix chooses by how URLs begin",
                );
            }
            for url in &report.urls {
                print(&format!("{url}\n"));
            }
            let done = match (report.dry_run, path.ends_with("purge")) {
                (true, _) => "would be chosen; nothing was changed",
                (false, true) => "forgotten",
                (false, false) => "to be validated before they are used again",
            };
            print(&format!(
                "{} URLs with {} {done}\n",
                report.selected,
                human(report.bytes)
            ));
            if report.freed_bytes > 0 {
                print(&format!("{} freed on the disk\n", human(report.freed_bytes)));
            }
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
pub(super) fn call<T: DeserializeOwned>(
    args: &AdminArgs,
    method: &Method,
    path: &str,
    query: &[(&str, &str)],
    show: impl FnOnce(T) -> u8,
) -> u8 {
    let token = match args.token() {
        Ok(token) => token,
        Err(error) => return fail(exit::USAGE, &error),
    };
    let document = match admin_call((&args.admin, token.as_ref()), method, path, query) {
        Ok(document) => document,
        Err(AdminFailure::Silent(error)) => return fail(exit::TRY_AGAIN, &error),
        Err(AdminFailure::Refused(error)) => return fail(exit::USAGE, &error),
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
