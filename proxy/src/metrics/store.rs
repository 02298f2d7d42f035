//! The store's families of the metrics page.

use super::{Gauges, page::Page};
use crate::store::LedgerFigures;

pub(super) fn render(page: &mut Page, now: &Gauges) {
    content(page, now);
    order(page, &now.ledger);
    care(page, now);
}

/// What is stored.
fn content(page: &mut Page, now: &Gauges) {
    let totals = &now.totals;
    page.plain(
        "gauge",
        &[
            (
                "kato_proxy_stored_responses",
                "Cache keys with a stored response.",
                totals.responses,
            ),
            (
                "kato_proxy_stored_contents",
                "Distinct contents in the store.",
                totals.contents,
            ),
            (
                "kato_proxy_stored_bytes",
                "Bytes of distinct content in the store.",
                totals.bytes,
            ),
            (
                "kato_proxy_queued_responses",
                "Stored responses on their way to the disk.",
                now.queued,
            ),
            (
                "kato_proxy_storing",
                "1 while the store takes new content, 0 while bodies are passed through.",
                u64::from(now.is_storing),
            ),
        ],
    );
}

/// What goes first when room is needed, and what went.
fn order(page: &mut Page, ledger: &LedgerFigures) {
    page.plain(
        "gauge",
        &[
            (
                "kato_proxy_pinned_contents",
                "Contents kept from eviction by a pin.",
                ledger.pinned as u64,
            ),
            (
                "kato_proxy_pinned_bytes",
                "Bytes of pinned content.",
                ledger.pinned_bytes,
            ),
            (
                "kato_proxy_store_memory_bytes",
                "Memory that the order of eviction takes, for all contents together.",
                ledger.memory as u64,
            ),
            (
                "kato_proxy_store_ghosts",
                "Evicted contents that are remembered by a fingerprint.",
                ledger.ghosts as u64,
            ),
            (
                "kato_proxy_store_loaded",
                "1 when the order of eviction has been read back after the start.",
                u64::from(ledger.is_loaded),
            ),
        ],
    );
    page.plain(
        "counter",
        &[
            (
                "kato_proxy_evicted_contents_total",
                "Contents evicted for room.",
                ledger.evicted,
            ),
            (
                "kato_proxy_evicted_bytes_total",
                "Bytes of evicted content.",
                ledger.evicted_bytes,
            ),
        ],
    );
}

/// What became of damage.
fn care(page: &mut Page, now: &Gauges) {
    let scrub = &now.scrub;
    page.plain(
        "gauge",
        &[(
            "kato_proxy_quarantined",
            "Damaged contents that are kept for somebody to look at.",
            now.quarantined as u64,
        )],
    );
    page.plain(
        "counter",
        &[
            (
                "kato_proxy_scrub_bytes_total",
                "Bytes of content that the scrub has read.",
                scrub.bytes,
            ),
            (
                "kato_proxy_scrub_passes_total",
                "Times that the scrub has read all content.",
                scrub.passes,
            ),
            (
                "kato_proxy_damaged_total",
                "Contents that were found damaged.",
                scrub.damaged,
            ),
        ],
    );
}
