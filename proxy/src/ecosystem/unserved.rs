//! What is asked for beside content, and a cache cannot give: refused here, before an origin hears of it. Nobody publishes, pushes or
//! deletes through a cache of packages, images or releases; and clients of package indexes are told the setting that keeps them from asking
//! for more.

use http::Method;

use crate::settings::Kind;

/// Why a request is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unserved {
    /// It would change the index: a publication, a login, a removal.
    Upload,
    /// It would change an archive, a registry or a repository of releases.
    ReadOnly,
    /// An index, or a repository, by git's protocol.
    Git,
    /// npm's audit: an answer about one client's tree of packages, made by the registry.
    Audit,
}

/// Whether a method only asks. TRACE is none of them: it has a server show what it was sent, and our credentials are no client's.
pub fn reads(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// Why a request for `path`, below the base URL of an upstream of `kind`, is not served; `None` for one that is, and for whatever is
/// asked of plain HTTP.
pub fn unserved(kind: Kind, method: &Method, path: &str, query: Option<&str>) -> Option<Unserved> {
    match kind {
        Kind::Generic => return None,
        Kind::Packages | Kind::Release | Kind::Registry => {
            return (!reads(method)).then_some(Unserved::ReadOnly);
        }
        Kind::Pypi | Kind::Npm | Kind::Cargo => {}
    }
    let is_git = path.ends_with("/git-upload-pack")
        || path.ends_with("/git-receive-pack")
        || (path.ends_with("info/refs") && query.is_some_and(|query| query.contains("service=git-")));
    if is_git {
        return Some(Unserved::Git);
    }
    if reads(method) {
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
            (
                Kind::Pypi,
                Method::TRACE,
                "simple/a/",
                None,
                Some(Unserved::Upload),
            ),
            (Kind::Generic, Method::PUT, "a", None, None),
            (Kind::Generic, Method::TRACE, "a", None, None),
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

    #[test]
    fn c01_nothing_is_written_to_an_archive_a_registry_or_a_repository_of_releases() {
        for kind in [Kind::Packages, Kind::Release, Kind::Registry] {
            for method in [
                "POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND", "MKCOL", "get",
            ] {
                let method: Method = method.parse().unwrap();
                assert_eq!(
                    unserved(kind, &method, "a", None),
                    Some(Unserved::ReadOnly),
                    "{kind:?} {method}"
                );
            }
            for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
                assert_eq!(unserved(kind, &method, "a", None), None, "{kind:?} {method}");
            }
        }
    }
}
