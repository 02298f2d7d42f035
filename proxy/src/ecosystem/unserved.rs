//! What clients of package indexes ask for beside packages, and a cache cannot give: refused here, with the setting that keeps a
//! client from asking, before an origin hears of it.

use http::Method;

use crate::settings::Kind;

/// Why a request is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unserved {
    /// It would change the index: a publication, a login, a removal.
    Upload,
    /// An index, or a repository, by git's protocol.
    Git,
    /// npm's audit: an answer about one client's tree of packages, made by the registry.
    Audit,
}

/// Why a request for `path`, below the base URL of an upstream of `kind`, is not served; `None` for one that is, and for all
/// kinds but those of languages.
pub fn unserved(kind: Kind, method: &Method, path: &str, query: Option<&str>) -> Option<Unserved> {
    if !matches!(kind, Kind::Pypi | Kind::Npm | Kind::Cargo) {
        return None;
    }
    let is_git = path.ends_with("/git-upload-pack")
        || path.ends_with("/git-receive-pack")
        || (path.ends_with("info/refs") && query.is_some_and(|query| query.contains("service=git-")));
    if is_git {
        return Some(Unserved::Git);
    }
    if matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE
    ) {
        return None;
    }
    if kind == Kind::Npm && path.starts_with("-/npm/v1/security/") {
        return Some(Unserved::Audit);
    }
    Some(Unserved::Upload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_installs_packages_is_served() {
        for (kind, method, path, query, expected) in [
            (Kind::Pypi, Method::GET, "simple/a/", None, None),
            (Kind::Pypi, Method::POST, "legacy/", None, Some(Unserved::Upload)),
            (Kind::Npm, Method::PUT, "a", None, Some(Unserved::Upload)),
            (
                Kind::Npm,
                Method::POST,
                "-/npm/v1/security/advisories/bulk",
                None,
                Some(Unserved::Audit),
            ),
            (Kind::Npm, Method::GET, "-/v1/search", Some("text=a"), None),
            (
                Kind::Cargo,
                Method::GET,
                "index.git/info/refs",
                Some("service=git-upload-pack"),
                Some(Unserved::Git),
            ),
            (Kind::Cargo, Method::GET, "in/fo/info", None, None),
            (
                Kind::Cargo,
                Method::PUT,
                "api/v1/crates/new",
                None,
                Some(Unserved::Upload),
            ),
            (Kind::Generic, Method::PUT, "a", None, None),
            (
                Kind::Generic,
                Method::GET,
                "a.git/info/refs",
                Some("service=git-upload-pack"),
                None,
            ),
        ] {
            assert_eq!(unserved(kind, &method, path, query), expected, "{method} {path}");
        }
    }
}
