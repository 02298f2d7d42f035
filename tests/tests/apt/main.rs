//! Real apt through the cache: real packages, a signed repository, a real web server with a log, and real installations on nodes.
//!
//! Each test installs on one node, marks the origin's log, installs the same on a second node, and reads in the log what the second one has
//! cost. Nothing but conditional requests that were answered 304 may stand there: the index may be validated, content may not
//! be fetched twice.

mod archive;
mod client;
mod fleet;
mod indexes;
mod odd;
mod origin;
mod presets;

/// Needs root and namespaces.
mod as_root {
    use anyhow::Result;
    use integration_tests::lab::{Lab, NodeSpec};

    use crate::{
        client::{Client, Route, cache},
        origin::Origin,
    };

    /// A package with a dependency in the same repository, and one without.
    const WANTED: [&str; 2] = ["fortune-mod", "hello"];

    fn lab() -> Result<Lab> {
        Lab::start(&[NodeSpec::new("core"), NodeSpec::new("n1"), NodeSpec::new("n2")])
    }

    /// Installs on n1 by `first` and on n2 by `second`, through one cache.
    fn second_node_is_served_by_the_cache(first: Route, second: Route) -> Result<()> {
        let lab = lab()?;
        let origin = Origin::start(&lab)?;
        let _cache = cache(&lab, &origin.url)?;

        Client::new(lab.node("n1")?, first).install(&origin, &WANTED)?;
        let mark = origin.requests()?.len();
        let packages = origin
            .requests()?
            .iter()
            .filter(|request| request.is_package())
            .count();
        assert_eq!(packages, 3, "two packages and a dependency");

        Client::new(lab.node("n2")?, second).install(&origin, &WANTED)?;
        let requests = origin.requests()?;
        let costs: Vec<_> = requests[mark..]
            .iter()
            .filter(|request| !request.is_validation())
            .collect();
        assert!(costs.is_empty(), "the second node has cost the origin {costs:#?}");
        for request in requests.iter().filter(|request| request.status == 200) {
            let times = requests
                .iter()
                .filter(|other| other.status == 200 && other.path == request.path)
                .count();
            assert_eq!(times, 1, "{} crossed more than once: {requests:#?}", request.path);
        }
        Ok(())
    }

    #[test]
    fn r14_apt_by_forward_proxy_costs_the_origin_nothing_on_the_second_node() -> Result<()> {
        second_node_is_served_by_the_cache(Route::ForwardProxy, Route::ForwardProxy)
    }

    #[test]
    fn r14_apt_by_mirror_path_costs_the_origin_nothing_on_the_second_node() -> Result<()> {
        second_node_is_served_by_the_cache(Route::MirrorPath, Route::MirrorPath)
    }

    #[test]
    fn r14_apt_finds_by_mirror_path_what_came_by_forward_proxy() -> Result<()> {
        second_node_is_served_by_the_cache(Route::ForwardProxy, Route::MirrorPath)
    }

    /// The measure itself: without the cache the second node does cost, so a log that stays empty for another reason would be noticed.
    #[test]
    fn without_the_cache_the_second_node_fetches_every_package_again() -> Result<()> {
        let lab = lab()?;
        let origin = Origin::start(&lab)?;
        Client::new(lab.node("n1")?, Route::Direct).install(&origin, &WANTED)?;
        let mark = origin.requests()?.len();
        Client::new(lab.node("n2")?, Route::Direct).install(&origin, &WANTED)?;
        let requests = origin.requests()?;
        let again = requests[mark..]
            .iter()
            .filter(|request| request.is_package() && request.status == 200);
        assert_eq!(again.count(), 3);
        Ok(())
    }
}
