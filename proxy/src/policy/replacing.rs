//! May an answer take the place of the 200 that is held under the same key? Pure.
//!
//! HTTP says that the newer response counts ([RFC 9111 §4](https://www.rfc-editor.org/rfc/rfc9111#section-4)). A document that many clients depend on is
//! worth more than that: the page of a network's login, an appliance on the way or a mirror in the middle of a deployment would take it away,
//! and with the origin off afterwards nothing would be left.
//!
//! Off-spec: for documents of ecosystems ([`Document`]) only a 200, or a 304, takes the place of a 200. Everything else keeps the rules.

use http::StatusCode;

/// What is asked for, as far as that decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Document {
    /// A document that names others, or a name of a registry: a suite's files, tags, lists, packuments, pages of indexes.
    Shared,
    /// As [`Self::Shared`], and never HTML: files of JSON.
    SharedData,
    /// All else, where RFC 9111 rules alone.
    Other,
}

/// What to do with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replacing {
    /// What the rules of HTTP say.
    ByRule,
    /// Hand it to the client that asked, and store nothing.
    HandOn,
    /// It is no usable answer: what is held stands in.
    NoAnswer,
}

/// Judges an answer with `status`, which is HTML or not, where a usable 200 is held or not.
pub fn replacing(document: Document, (status, is_html): (StatusCode, bool), is_held: bool) -> Replacing {
    if document == Document::Other {
        return Replacing::ByRule;
    }
    match status.as_u16() {
        200 if is_html && document == Document::SharedData => no_answer(is_held),
        200 | 304 => Replacing::ByRule,
        // Requests to proxies, methods, networks: none of it is about the document.
        201..=399 | 407 | 511 => no_answer(is_held),
        405 | 414 | 501 if is_held => Replacing::NoAnswer,
        _ if is_held => Replacing::HandOn,
        _ => Replacing::ByRule,
    }
}

const fn no_answer(is_held: bool) -> Replacing {
    if is_held {
        Replacing::NoAnswer
    } else {
        Replacing::HandOn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p10_only_a_usable_200_takes_the_place_of_a_200() {
        use Replacing::{ByRule, HandOn, NoAnswer};
        for (status, if_held, else_) in [
            (200, ByRule, ByRule),
            (201, NoAnswer, HandOn),
            (202, NoAnswer, HandOn),
            (203, NoAnswer, HandOn),
            (204, NoAnswer, HandOn),
            (205, NoAnswer, HandOn),
            (300, NoAnswer, HandOn),
            (301, NoAnswer, HandOn),
            (302, NoAnswer, HandOn),
            (304, ByRule, ByRule),
            (308, NoAnswer, HandOn),
            (400, HandOn, ByRule),
            (401, HandOn, ByRule),
            (403, HandOn, ByRule),
            (404, HandOn, ByRule),
            (405, NoAnswer, ByRule),
            (407, NoAnswer, HandOn),
            (410, HandOn, ByRule),
            (414, NoAnswer, ByRule),
            (451, HandOn, ByRule),
            (500, HandOn, ByRule),
            (501, NoAnswer, ByRule),
            (503, HandOn, ByRule),
            (511, NoAnswer, HandOn),
        ] {
            let code = StatusCode::from_u16(status).unwrap();
            for document in [Document::Shared, Document::SharedData] {
                assert_eq!(replacing(document, (code, false), true), if_held, "{status}");
                assert_eq!(replacing(document, (code, false), false), else_, "{status}");
            }
            assert_eq!(replacing(Document::Other, (code, true), true), ByRule, "{status}");
        }
    }

    #[test]
    fn a_page_takes_no_place_of_data() {
        let page = (StatusCode::OK, true);
        assert_eq!(replacing(Document::SharedData, page, true), Replacing::NoAnswer);
        assert_eq!(replacing(Document::SharedData, page, false), Replacing::HandOn);
        assert_eq!(replacing(Document::Shared, page, true), Replacing::ByRule);
    }
}
