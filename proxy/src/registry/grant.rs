//! What a client posts for a token (OAuth 2.0 as registries speak it; [RFC 6749 §4.3, §6], and "Token Authentication" of the
//! distribution project), and how it is refused. Pure.
//!
//! Deliberately absent: refresh tokens. A name and a secret are shown each time; there is nothing else that a client could keep.
//!
//! [RFC 6749 §4.3, §6]: https://www.rfc-editor.org/rfc/rfc6749

use http::{HeaderValue, Response, StatusCode, header};
use serde_json::json;
use url::form_urlencoded;

use super::{NotGiven, problem::RETRY_AFTER};
use crate::deliver::Payload;

/// The most bytes of a form: a name, a secret and some scopes.
pub(crate) const MOST_BYTES: usize = 16 << 10;

/// The media type that a form has.
const FORM: &str = "application/x-www-form-urlencoded";

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    /// The user.
    pub(crate) name: String,
    /// The user's secret.
    pub(crate) secret: String,
    /// As in the query of a GET.
    pub(crate) scopes: String,
}

/// Why nothing is granted ([RFC 6749 §5.2](https://www.rfc-editor.org/rfc/rfc6749#section-5.2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoGrant {
    /// Something is missing, or there twice.
    Malformed(&'static str),
    /// Another way than by name and secret.
    Unsupported,
    /// Name and secret are not those of a user.
    Denied,
    /// Enough passwords of this client are being verified.
    Crowded,
}

impl From<NotGiven> for NoGrant {
    fn from(not: NotGiven) -> Self {
        match not {
            NotGiven::Stranger => Self::Denied,
            NotGiven::Crowded => Self::Crowded,
        }
    }
}

impl Grant {
    /// What `body` of `content_type` asks for.
    ///
    /// # Errors
    /// [`NoGrant`].
    pub(crate) fn read(content_type: Option<&HeaderValue>, body: &[u8]) -> Result<Self, NoGrant> {
        let media_type = content_type
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let media_type = media_type.split(';').next().unwrap_or_default().trim();
        if !media_type.eq_ignore_ascii_case(FORM) {
            return Err(NoGrant::Malformed("the content is no form"));
        }
        // "Request and response parameters MUST NOT be included more than once" (§3.2).
        let one = |wanted: &'static str| {
            let mut values = form_urlencoded::parse(body).filter(|(name, _)| name == wanted);
            match (values.next(), values.next()) {
                (Some((_, value)), None) if !value.is_empty() => Ok(value.into_owned()),
                (_, Some(_)) => Err(NoGrant::Malformed("a parameter is there twice")),
                (_, None) => Err(NoGrant::Malformed(wanted)),
            }
        };
        if one("grant_type")? != "password" {
            return Err(NoGrant::Unsupported);
        }
        let (name, secret) = (one("username")?, one("password")?);
        // No line of the file has such a name, and `name:secret` would be cut elsewhere.
        if name.contains(':') {
            return Err(NoGrant::Denied);
        }
        let mut scopes = form_urlencoded::Serializer::new(String::new());
        for (_, scope) in form_urlencoded::parse(body).filter(|(name, _)| name == "scope") {
            scopes.append_pair("scope", &scope);
        }
        Ok(Self {
            name,
            secret,
            scopes: scopes.finish(),
        })
    }
}

impl NoGrant {
    /// The answer.
    pub(crate) fn response(self) -> Response<Payload> {
        let (error, description) = match self {
            Self::Malformed(what) => ("invalid_request", format!("not usable: {what}")),
            Self::Unsupported => (
                "unsupported_grant_type",
                "only grant_type=password: this server gives no refresh tokens".to_owned(),
            ),
            Self::Denied => ("invalid_grant", "not the name and secret of a user".to_owned()),
            Self::Crowded => ("temporarily_unavailable", super::crowded().detail),
        };
        let body = json!({ "error": error, "error_description": description });
        let mut response = Response::new(Payload::bytes(body.to_string().into_bytes()));
        let is_crowded = self == Self::Crowded;
        *response.status_mut() = if is_crowded {
            StatusCode::TOO_MANY_REQUESTS
        } else {
            StatusCode::BAD_REQUEST
        };
        let headers = response.headers_mut();
        if is_crowded {
            headers.insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<Grant, NoGrant> {
        let form = HeaderValue::from_static("application/x-www-form-urlencoded; charset=utf-8");
        Grant::read(Some(&form), body.as_bytes())
    }

    #[test]
    fn rfc6749_s4_3_2_name_and_secret_are_read_with_all_scopes() {
        let body = "grant_type=password&service=kato&client_id=x&scope=repository%3Aa%3Apull+b&scope=c\
                    &username=ada&password=open+s%26same";
        let grant = read(body).unwrap();
        assert_eq!(
            (grant.name.as_str(), grant.secret.as_str()),
            ("ada", "open s&same")
        );
        assert_eq!(grant.scopes, "scope=repository%3Aa%3Apull+b&scope=c");
    }

    #[test]
    fn rfc6749_s5_2_what_is_not_granted_is_named() {
        for (body, expected) in [
            ("", NoGrant::Malformed("grant_type")),
            ("grant_type=refresh_token&refresh_token=x", NoGrant::Unsupported),
            ("grant_type=password&username=ada", NoGrant::Malformed("password")),
            (
                "grant_type=password&username=ada&username=bob&password=x",
                NoGrant::Malformed("a parameter is there twice"),
            ),
            ("grant_type=password&username=a%3Ab&password=x", NoGrant::Denied),
        ] {
            assert_eq!(read(body), Err(expected), "{body}");
        }
        let json = HeaderValue::from_static("application/json");
        let no_form = Grant::read(Some(&json), b"grant_type=password&username=a&password=b");
        assert!(matches!(no_form, Err(NoGrant::Malformed(_))));
        assert_eq!(Grant::read(None, b"").unwrap_err().response().status(), 400);
    }
}
