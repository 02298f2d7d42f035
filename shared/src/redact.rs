//! Keeps secrets out of messages: names and passwords in URLs, and signed query strings.

use url::Url;

/// `url` for people and logs: without who asks there, and without the values of its query.
///
/// A name is hidden along with its password: some servers take a token in its place, and messages go to clients, too. Query values are hidden because CDN redirects carry signatures there; the names stay, they help to debug.
pub fn url(url: &Url) -> String {
    let mut shown = url.clone();
    if shown.password().is_some() || !shown.username().is_empty() {
        // A URL that has them can have them set.
        let _kept = shown.set_username("***").and_then(|()| shown.set_password(None));
    }
    let names: Vec<String> = url.query_pairs().map(|(name, _)| format!("{name}=***")).collect();
    shown.set_query((!names.is_empty()).then(|| names.join("&")).as_deref());
    shown.into()
}

/// Whose address `url` is, for people and logs: without its path, too. Addresses of hooks carry their token there.
pub fn receiver(address: &Url) -> String {
    let mut shown = address.clone();
    shown.set_query(None);
    shown.set_fragment(None);
    if !matches!(address.path(), "" | "/") {
        shown.set_path("/***");
    }
    url(&shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_password_and_the_query_values_are_hidden() {
        for who in ["bob:pa55", "token", ":pa55"] {
            let secret = format!("https://{who}@cdn.example/a/b?sig=abc&exp=9");
            let shown = url(&Url::parse(&secret).unwrap());
            assert_eq!(shown, "https://***@cdn.example/a/b?sig=***&exp=***", "{who}");
        }
        let hook = Url::parse("https://bob:pa55@chat.example:8443/services/T0/abc?token=x#y").unwrap();
        assert_eq!(receiver(&hook), "https://***@chat.example:8443/***");
        let plain = Url::parse("https://cdn.example/a").unwrap();
        assert_eq!(url(&plain), "https://cdn.example/a");
    }
}
