//! The certificate of the server's authority, beside those that this machine trusts.

use url::Url;

use super::{Check, reach::fetched, upstreams::judged};
use crate::origin::Prober;

pub(super) async fn certificate(server: &Url, prober: &Prober, path: &str, trusted: &str) -> Check {
    let subject = "certificate";
    let answer = fetched(server, prober, (path, "*/*")).await;
    match answer {
        Ok(answer) if answer.status.is_success() => {
            if is_among(&String::from_utf8_lossy(&answer.body), trusted) {
                Check::ok(subject, "the server's authority is trusted by this machine")
            } else {
                Check::warning(
                    subject,
                    "the server's authority is not among those that this machine trusts",
                    "clients that use the server as a proxy need it: /-/setup/env says how; mirror paths do not",
                )
            }
        }
        Ok(answer) => judged(subject, &answer, true),
        Err(error) => Check::failed(subject, error, "does the server still run?"),
    }
}

/// Whether the first certificate of `pem` stands in `bundle`, however its lines are broken.
fn is_among(pem: &str, bundle: &str) -> bool {
    let bodies = |text: &str| -> Vec<String> {
        let parts = text.split("-----BEGIN CERTIFICATE-----").skip(1);
        parts
            .filter_map(|part| {
                part.split_once("-----END")
                    .map(|(body, _)| body.split_whitespace().collect())
            })
            .collect()
    };
    bodies(pem)
        .first()
        .is_some_and(|ours| bodies(bundle).contains(ours))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_found_however_its_lines_are_broken() {
        let pem = |body: &str| format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n");
        let bundle = format!("{}{}", pem("AAAA\nBBBB"), pem("CCCCDD\nDD"));
        assert!(is_among(&pem("CCCC\nDDDD"), &bundle));
        assert!(!is_among(&pem("CCCC"), &bundle));
        assert!(!is_among("", &bundle));
    }
}
