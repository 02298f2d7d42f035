//! What a 401 asks for (RFC 9110 §11.6.1): the first challenge that can be met. Pure.

use http::{HeaderMap, header};
use url::Url;

/// What a registry wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// User and password themselves.
    Basic,
    /// A token.
    Bearer(Bearer),
}

/// Where a token comes from, and what for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Bearer {
    pub(super) realm: Url,
    pub(super) service: Option<String>,
    pub(super) scope: String,
}

impl Bearer {
    /// What is asked of the token service; `account` is the user, where there are credentials.
    pub(super) fn url(&self, account: Option<&str>) -> Url {
        let mut url = self.realm.clone();
        {
            let mut query = url.query_pairs_mut();
            if let Some(account) = account {
                query.append_pair("account", account);
            }
            if let Some(service) = &self.service {
                query.append_pair("service", service);
            }
            // "scope … may be specified more than once": a challenge separates them by spaces.
            for scope in self.scope.split(' ').filter(|scope| !scope.is_empty()) {
                query.append_pair("scope", scope);
            }
        }
        url
    }
}

impl Challenge {
    /// The challenge in `headers`; Bearer before Basic, as registries that offer both prefer.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let lines = headers
            .get_all(header::WWW_AUTHENTICATE)
            .iter()
            .filter_map(|line| line.to_str().ok());
        let mut basic = None;
        for line in lines {
            for (scheme, parameters) in challenges(line) {
                if scheme.eq_ignore_ascii_case("bearer")
                    && let Some(bearer) = bearer(&parameters)
                {
                    return Some(Self::Bearer(bearer));
                }
                if scheme.eq_ignore_ascii_case("basic") {
                    basic = Some(Self::Basic);
                }
            }
        }
        basic
    }
}

fn bearer(parameters: &[(String, String)]) -> Option<Bearer> {
    let value = |name: &str| {
        parameters
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.clone())
    };
    let realm = Url::parse(&value("realm")?).ok()?;
    let is_http = matches!(realm.scheme(), "http" | "https");
    let has_secret = !realm.username().is_empty() || realm.password().is_some();
    (is_http && realm.host().is_some() && !has_secret).then(|| Bearer {
        realm,
        service: value("service"),
        scope: value("scope").unwrap_or_default(),
    })
}

/// The challenges of one field line: `scheme name="value", name=value, scheme2 …`. What cannot be read ends the list.
fn challenges(line: &str) -> Vec<(String, Vec<(String, String)>)> {
    let mut found: Vec<(String, Vec<(String, String)>)> = Vec::new();
    let mut rest = line;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest
            .find(|letter: char| !(letter.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(letter)))
            .unwrap_or(rest.len());
        if end == 0 {
            return found;
        }
        let (token, after) = rest.split_at(end);
        let Some(value) = after.trim_start().strip_prefix('=') else {
            found.push((token.to_owned(), Vec::new()));
            rest = after;
            continue;
        };
        let Some((value, after)) = parameter(value.trim_start()) else {
            return found;
        };
        if let Some((_, parameters)) = found.last_mut() {
            parameters.push((token.to_owned(), value));
        }
        rest = after;
    }
}

/// A token or a quoted string, and what follows.
fn parameter(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ']).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut letters = quoted.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(letters.next()?.1),
            letter => value.push(letter),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lines: &[&'static str]) -> Option<Challenge> {
        let headers: HeaderMap = lines
            .iter()
            .map(|line| (header::WWW_AUTHENTICATE, line.parse().unwrap()))
            .collect();
        Challenge::of(&headers)
    }

    #[test]
    fn a_bearer_challenge_says_where_and_what_for() {
        let line = "Bearer realm=\"https://auth.hub.example/token\",service=\"registry.hub.example\",scope=\"repository:a/b:pull\"";
        let Some(Challenge::Bearer(bearer)) = of(&[line]) else {
            panic!("no challenge")
        };
        assert_eq!(
            bearer.url(None).as_str(),
            "https://auth.hub.example/token?service=registry.hub.example&scope=repository%3Aa%2Fb%3Apull"
        );
        let both = Bearer {
            scope: "a:b:pull c:d:pull".into(),
            ..bearer
        };
        assert!(
            both.url(Some("me"))
                .as_str()
                .ends_with("&scope=a%3Ab%3Apull&scope=c%3Ad%3Apull")
        );
        assert!(both.url(Some("me")).as_str().contains("?account=me&"));
    }

    #[test]
    fn rfc9110_s11_6_1_lists_of_challenges_are_read() {
        let bearer = "Bearer realm = \"http://t.example/\\\"x\" , error=invalid_token";
        assert!(matches!(
            of(&["Basic realm=\"x\"", bearer]),
            Some(Challenge::Bearer(_))
        ));
        let one_line = "Negotiate, Basic realm=\"a, b\", Bearer realm=\"http://t.example/\"";
        assert!(matches!(of(&[one_line]), Some(Challenge::Bearer(_))));
        assert_eq!(of(&["BASIC realm=x"]), Some(Challenge::Basic));
        for useless in [
            "",
            "Negotiate",
            "Bearer",
            "Bearer realm=\"not a url\"",
            "Bearer realm=\"file:///etc/passwd\"",
            "Bearer realm=\"https://user:pw@t.example/\"",
            "Bearer realm=\"https://t.example/",
        ] {
            let headers: HeaderMap = [(header::WWW_AUTHENTICATE, useless.parse().unwrap())]
                .into_iter()
                .collect();
            assert_eq!(Challenge::of(&headers), None, "{useless}");
        }
    }
}
