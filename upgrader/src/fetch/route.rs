//! Where a request for a URL really goes.

use url::Url;

/// The way of all requests of a [`super::Fetcher`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// To the server itself; `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` (or in lower case) are honoured.
    Direct,
    /// To the cache, by its mirror path: `https://h/p` becomes `<cache>/https/h/p`. No proxy of the system is asked.
    Cache(Url),
}

impl Route {
    /// The URL that is requested for `target`.
    ///
    /// A target that is not `http` or `https`, or that is on the cache already, stays as it is.
    pub fn resolve(&self, target: &Url) -> Url {
        let Self::Cache(cache) = self else {
            return target.clone();
        };
        let Some(host) = target
            .host_str()
            .filter(|_| matches!(target.scheme(), "http" | "https"))
        else {
            return target.clone();
        };
        if target.origin() == cache.origin() {
            return target.clone();
        }
        let port = target.port().map(|port| format!(":{port}")).unwrap_or_default();
        let prefix = cache.path().trim_end_matches('/');
        let mut url = cache.clone();
        url.set_path(&format!(
            "{prefix}/{}/{host}{port}{}",
            target.scheme(),
            target.path()
        ));
        url.set_query(target.query());
        url.set_fragment(None);
        url
    }

    /// Whether requests go to a cache.
    pub const fn is_cache(&self) -> bool {
        matches!(self, Self::Cache(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(cache: &str, target: &str) -> String {
        Route::Cache(cache.parse().unwrap())
            .resolve(&target.parse().unwrap())
            .into()
    }

    #[test]
    fn a_target_becomes_a_mirror_path_of_the_cache() {
        let cache = "http://10.0.0.1:3180/";
        for (target, expected) in [
            ("https://h.example/a/b.tar", "/https/h.example/a/b.tar"),
            ("http://h.example:8080/a?x=1#f", "/http/h.example:8080/a?x=1"),
            ("https://[fd00::1]:8443/a", "/https/[fd00::1]:8443/a"),
            ("https://h.example/a%20b/%2e", "/https/h.example/a%20b/"),
        ] {
            assert_eq!(through(cache, target), format!("http://10.0.0.1:3180{expected}"));
        }
        assert_eq!(through("http://c/sub/", "https://h/x"), "http://c/sub/https/h/x");
    }

    #[test]
    fn a_target_on_the_cache_is_asked_for_as_it_is() {
        assert_eq!(
            through("http://c:3180/", "http://c:3180/self"),
            "http://c:3180/self"
        );
    }

    #[test]
    fn a_direct_route_changes_nothing() {
        let target: Url = "https://h.example/a".parse().unwrap();
        assert_eq!(Route::Direct.resolve(&target), target);
    }
}
