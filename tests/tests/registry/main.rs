//! Real container images through the cache: a real registry with a log, and `skopeo` on nodes.
//!
//! Each test pulls on one node, marks the registry's log, pulls on a second node, and reads in the log what the second one has cost.
//! Tags may move, so their manifests may be validated; a blob is named by its digest and may never cross twice.
//!
//! `doors` is the table of all clients by all doors, `door` is about the door `/v2/` against registries by script, `real` about real registries, tokens and the programs that pull.
//!
//! `asking` is about what a registry is asked, and how often,
//! `behind_tls` has TLS on both sides, `users` those who have to say who they are, `turned_away` what is refused, `wrong` content
//! that is not what was asked for, `recorded` what programs ask in one pull, written down by `recording`, `presets` the presets that are delivered, `referrers` what refers to an image.

mod asking;
mod behind_tls;
mod client;
mod door;
mod doors;
mod image;
mod odd;
mod origin;
mod presets;
mod programs;
mod real;
mod recorded;
mod recording;
mod referrers;
mod scripted;
mod turned_away;
mod users;
mod wrong;

/// Needs root and namespaces.
mod as_root {
    use anyhow::Result;
    use integration_tests::lab::{Lab, NodeSpec};

    use crate::{
        client::{Route, cache, pull},
        image::Image,
        origin::{Registry, Request},
    };

    fn lab() -> Result<Lab> {
        Lab::start(&[NodeSpec::new("core"), NodeSpec::new("n1"), NodeSpec::new("n2")])
    }

    #[test]
    fn r14_an_image_costs_the_registry_no_blob_on_the_second_node() -> Result<()> {
        let lab = lab()?;
        let registry = Registry::start(&lab)?;
        let image = Image::build(lab.node("core")?, &["base", "app"])?;
        image.push()?;
        let _cache = cache(&lab)?;

        let mark = registry.requests()?.len();
        pull(lab.node("n1")?, Route::ForwardProxy, ":v1")?.assert_is(&image)?;
        let requests = registry.requests()?;
        let blobs = requests[mark..].iter().filter(|request| request.is_blob());
        assert_eq!(
            blobs.count(),
            3,
            "two layers and the configuration: {requests:#?}"
        );

        pull(lab.node("n2")?, Route::ForwardProxy, ":v1")?.assert_is(&image)?;
        let second = &registry.requests()?[requests.len()..];
        assert!(
            !second.iter().any(Request::is_blob),
            "the second node has cost the registry {second:#?}"
        );
        // What crosses again is one question about the tag.
        let manifests = second.iter().filter(|request| request.is_manifest());
        let asked: Vec<_> = manifests
            .map(|request| (request.method.as_str(), request.status))
            .collect();
        assert_eq!(asked, [("HEAD", 200)], "{second:#?}");
        Ok(())
    }

    #[test]
    fn r14_a_tag_that_moved_brings_the_new_image_and_only_its_new_blobs() -> Result<()> {
        let lab = lab()?;
        let registry = Registry::start(&lab)?;
        let old = Image::build(lab.node("core")?, &["base", "app"])?;
        old.push()?;
        let _cache = cache(&lab)?;
        pull(lab.node("n1")?, Route::ForwardProxy, ":v1")?.assert_is(&old)?;

        let new = Image::build(lab.node("core")?, &["base", "app, repaired"])?;
        assert_ne!(old.digest(), new.digest());
        new.push()?;
        let mark = registry.requests()?.len();
        pull(lab.node("n2")?, Route::ForwardProxy, ":v1")?.assert_is(&new)?;

        let requests = registry.requests()?;
        let blobs = requests[mark..].iter().filter(|request| request.is_blob());
        assert_eq!(
            blobs.count(),
            2,
            "one layer and the configuration are new: {requests:#?}"
        );
        Ok(())
    }

    #[test]
    fn r14_an_image_comes_by_tag_and_by_digest_while_the_registry_is_down() -> Result<()> {
        let lab = lab()?;
        let registry = Registry::start(&lab)?;
        let image = Image::build(lab.node("core")?, &["base", "app"])?;
        image.push()?;
        let _cache = cache(&lab)?;
        pull(lab.node("n1")?, Route::ForwardProxy, ":v1")?.assert_is(&image)?;

        registry.stop()?;
        let by_digest = format!("@{}", image.digest());
        for reference in [":v1", by_digest.as_str()] {
            let refused = pull(lab.node("n2")?, Route::Direct, reference);
            assert!(refused.is_err(), "the registry is still there");
            pull(lab.node("n2")?, Route::ForwardProxy, reference)?.assert_is(&image)?;
        }
        Ok(())
    }

    /// The measure itself: without the cache the second node does cost, so a log that stays empty for another reason would be noticed.
    #[test]
    fn without_the_cache_the_second_node_fetches_every_blob_again() -> Result<()> {
        let lab = lab()?;
        let registry = Registry::start(&lab)?;
        let image = Image::build(lab.node("core")?, &["base", "app"])?;
        image.push()?;
        pull(lab.node("n1")?, Route::Direct, ":v1")?.assert_is(&image)?;
        let mark = registry.requests()?.len();
        pull(lab.node("n2")?, Route::Direct, ":v1")?.assert_is(&image)?;
        let requests = registry.requests()?;
        let again = requests[mark..]
            .iter()
            .filter(|request| request.is_blob() && request.status == 200);
        assert_eq!(again.count(), 3);
        Ok(())
    }
}
