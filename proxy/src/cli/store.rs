//! Verbs that change what the running proxy keeps: `pin`, `unpin`, `gc`.

use clap::Args;
use http::Method;
use kato_shared::settings::byte_size::human;

use super::{AdminArgs, client::call, print};
use crate::{
    admin::{GcReport, PinView, PinsPage},
    exit,
};

#[derive(Debug, Args)]
pub(super) struct PinArgs {
    /// A URL, a URL prefix with * behind it, or sha256:…; without it, pins are listed
    target: Option<String>,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Debug, Args)]
pub(super) struct UnpinArgs {
    /// What was pinned, as `kato-proxy pin` lists it
    target: String,
    #[command(flatten)]
    admin: AdminArgs,
}

/// `pin`.
pub(super) fn pin(args: &PinArgs) -> u8 {
    match &args.target {
        Some(target) => {
            let query = [("target", target.as_str())];
            call(
                &args.admin,
                &Method::POST,
                "/-/api/pin",
                &query,
                |page: PinsPage| show(&page, "pinned"),
            )
        }
        None => call(&args.admin, &Method::GET, "/-/api/pins", &[], |page: PinsPage| {
            show(&page, "pinned")
        }),
    }
}

/// `unpin`.
pub(super) fn unpin(args: &UnpinArgs) -> u8 {
    let query = [("target", args.target.as_str())];
    call(
        &args.admin,
        &Method::POST,
        "/-/api/unpin",
        &query,
        |page: PinsPage| show(&page, "unpinned"),
    )
}

/// `gc`.
pub(super) fn gc(args: &AdminArgs) -> u8 {
    call(args, &Method::POST, "/-/api/gc", &[], |report: GcReport| {
        print(&format!(
            "contents without a name   {:>8}   {}\nstale negative answers    {:>8}\ntemporary files           {:>8}   {}\n\
             index                                {}, was {}\n",
            report.contents,
            human(report.content_bytes),
            report.negatives,
            report.temporary,
            human(report.temporary_bytes),
            human(report.index_after),
            human(report.index_before),
        ));
        exit::DONE
    })
}

fn show(page: &PinsPage, done: &str) -> u8 {
    for PinView {
        target,
        since,
        contents,
        bytes,
    } in &page.pins
    {
        print(&format!(
            "{done}  {target}  {contents} contents, {}  since {since}\n",
            human(*bytes)
        ));
    }
    print(&format!(
        "all pins hold {} of {}\n",
        human(page.pinned_bytes),
        human(page.max_size)
    ));
    if let Some(warning) = &page.warning {
        print(&format!("warning: {warning}\n"));
    }
    exit::DONE
}
