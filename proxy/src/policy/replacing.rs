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
    /// A document that names others: a suite's files, pages of indexes.
    Shared,
    /// A tag or a list of a registry, whose clients expect answers of a registry alone.
    Name,
    /// As [`Self::Shared`], and never HTML: files of JSON, lists of digests.
    SharedData,
    /// All else, where RFC 9111 rules alone.
    Other,
}

/// What came, as far as that decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// A page, by what its head says.
    Html,
    /// What no such document is, by its form.
    OfAnotherKind,
    /// All else.
    Plausible,
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

/// Judges an answer with `status`, whose content is of the kind that was asked for or not, where a usable 200 is held or not.
pub fn replacing(document: Document, (status, content): (StatusCode, Content), is_held: bool) -> Replacing {
    if document == Document::Other {
        return Replacing::ByRule;
    }
    let no_answer = if is_held || document == Document::Name {
        Replacing::NoAnswer
    } else {
        Replacing::HandOn
    };
    match status.as_u16() {
        200 if content == Content::OfAnotherKind => no_answer,
        200 if content == Content::Html && document == Document::SharedData => no_answer,
        200 | 304 => Replacing::ByRule,
        // Requests to proxies, methods, networks: none of it is about the document.
        201..=399 | 407 | 511 => no_answer,
        405 | 414 | 501 if is_held => Replacing::NoAnswer,
        _ if is_held => Replacing::HandOn,
        _ => Replacing::ByRule,
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
                assert_eq!(
                    replacing(document, (code, Content::Plausible), true),
                    if_held,
                    "{status}"
                );
                assert_eq!(
                    replacing(document, (code, Content::Plausible), false),
                    else_,
                    "{status}"
                );
            }
            assert_eq!(
                replacing(Document::Name, (code, Content::Plausible), false),
                if else_ == HandOn { NoAnswer } else { else_ },
                "{status}"
            );
            assert_eq!(
                replacing(Document::Other, (code, Content::OfAnotherKind), true),
                ByRule,
                "{status}"
            );
        }
    }

    #[test]
    fn a_page_takes_no_place_of_data() {
        let page = (StatusCode::OK, Content::Html);
        assert_eq!(replacing(Document::SharedData, page, true), Replacing::NoAnswer);
        assert_eq!(replacing(Document::SharedData, page, false), Replacing::HandOn);
        assert_eq!(replacing(Document::Shared, page, true), Replacing::ByRule);
        let other = (StatusCode::OK, Content::OfAnotherKind);
        assert_eq!(replacing(Document::Shared, other, true), Replacing::NoAnswer);
        assert_eq!(replacing(Document::Shared, other, false), Replacing::HandOn);
    }
}
