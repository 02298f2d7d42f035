//! What an upstream says with an error, in the form of the distribution specification ("Error codes").
//!
//! Container clients print what stands in `message`, to a terminal: bytes that steer one do not get there, and neither does a page of HTML.

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::problem::code_of;

/// The most characters of an upstream's text that are passed on.
const MOST: usize = 300;

/// The most bytes of an error that are read; what is longer is only called by its status code.
pub(crate) const MOST_SAID: usize = 64 << 10;

/// The document about an error with `status` whose content is `said`, by the registry that is called `name` here.
pub(crate) fn errors(name: &str, status: StatusCode, said: &[u8]) -> Value {
    let read: Option<Map<String, Value>> = serde_json::from_slice(said).ok();
    let listed = read.as_ref().and_then(|read| read.get("errors")?.as_array());
    let own: Vec<Value> = listed
        .into_iter()
        .flatten()
        .filter_map(|error| error.as_object().filter(|error| error.contains_key("code")))
        .map(|error| Value::Object(error.clone()))
        .map(cleaned)
        .collect();
    if !own.is_empty() {
        return json!({ "errors": own });
    }
    let text = plain(said);
    let colon = if text.is_empty() { "" } else { ": " };
    json!({ "errors": [{
        "code": code_of(status),
        "message": format!("the registry `{name}` answers {status}{colon}{text}"),
    }]})
}

/// `value` without characters that steer terminals.
fn cleaned(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(one_line(&text)),
        Value::Array(values) => values.into_iter().map(cleaned).collect(),
        Value::Object(members) => members
            .into_iter()
            .map(|(name, value)| (one_line(&name), cleaned(value)))
            .collect(),
        other @ (Value::Null | Value::Bool(_) | Value::Number(_)) => other,
    }
}

/// What people wrote, if they did: nothing of pages and of data.
fn plain(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    let begins_with = |first: char| text.trim_start().starts_with(first);
    if begins_with('<') || begins_with('{') || begins_with('[') || text.contains("<html") {
        return String::new();
    }
    one_line(&text)
}

/// The first characters of `text`, without those that control or hide anything, in one line.
fn one_line(text: &str) -> String {
    let is_hidden = |character: char| matches!(character, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    let words = text.split_whitespace().map(|word| {
        let shown = word
            .chars()
            .filter(|character| !character.is_control() && !is_hidden(*character));
        shown.collect::<String>()
    });
    let line = words
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ");
    line.chars().take(MOST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_upstream_says_is_passed_on_in_one_form_and_steers_no_terminal() {
        let said = |status, text: &str| {
            let errors = errors("hub", status, text.as_bytes());
            let first = &errors["errors"][0];
            let text = |key: &str| first[key].as_str().unwrap_or_default().to_owned();
            (text("code"), text("message"))
        };
        let (code, message) = said(
            StatusCode::INTERNAL_SERVER_ERROR,
            "\u{1b}[31mboom\u{7}\r\n\u{202e}txet",
        );
        assert_eq!(
            (code.as_str(), message.as_str()),
            (
                "UNAVAILABLE",
                "the registry `hub` answers 500 Internal Server Error: [31mboom txet"
            )
        );
        let (code, message) = said(StatusCode::NOT_FOUND, "404 page not found\n");
        assert_eq!(
            (code.as_str(), message.as_str()),
            (
                "NAME_UNKNOWN",
                "the registry `hub` answers 404 Not Found: 404 page not found"
            )
        );
        for page in ["<html>no", "<!doctype html>", "{\"x\":\"y\"}", ""] {
            let (_, message) = said(StatusCode::FORBIDDEN, page);
            assert_eq!(message, "the registry `hub` answers 403 Forbidden", "{page}");
        }
        let own = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"no\u001b[2J tag","detail":{"Tag":"v\u00071"}}]}"#;
        let errors = errors("hub", StatusCode::NOT_FOUND, own.as_bytes());
        assert_eq!(
            errors,
            json!({"errors":[{"code":"MANIFEST_UNKNOWN","message":"no[2J tag","detail":{"Tag":"v1"}}]})
        );
    }
}
