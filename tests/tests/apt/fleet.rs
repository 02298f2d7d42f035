//! Many nodes, and an archive that changes, lies and goes away.

/// Needs root and namespaces.
mod as_root {
    use std::{fs, thread, time::Duration};

    use anyhow::{Context, Result, anyhow};
    use integration_tests::lab::{Lab, NodeSpec};
    use kato_shared::durable;
    use tokio::time::Instant;

    use crate::{
        archive::{Archive, PACKAGES, flip},
        client::{Client, Route, cache},
        origin::{Request, requests},
    };

    /// What was wrong is refused for some seconds without asking the archive.
    const SOON: Duration = Duration::from_secs(30);
    const DOORS: [Route; 3] = [Route::ForwardProxy, Route::MirrorPath, Route::HostPath];

    fn lab(nodes: usize) -> Result<Lab> {
        let mut specs = vec![NodeSpec::new("core")];
        specs.extend((1..=nodes).map(|nth| NodeSpec::new(&format!("n{nth}"))));
        Lab::start(&specs)
    }

    /// Clients on all nodes but the core, by each door in turn, ready for `apt-get update`.
    fn clients<'lab>(lab: &'lab Lab, archive: &Archive<'_>, nodes: usize) -> Result<Vec<Client<'lab>>> {
        let key = archive.public_key()?;
        (1..=nodes)
            .map(|nth| {
                let client = Client::new(lab.node(&format!("n{nth}"))?, DOORS[nth % DOORS.len()]);
                client.prepare(&archive.url, &key)?;
                Ok(client)
            })
            .collect()
    }

    /// Does `work` on all of `clients` at once.
    fn at_once(clients: &[Client<'_>], work: impl Fn(&Client<'_>) -> Result<()> + Sync) -> Result<()> {
        thread::scope(|scope| {
            let running: Vec<_> = clients
                .iter()
                .map(|client| scope.spawn(|| work(client)))
                .collect();
            running
                .into_iter()
                .try_for_each(|one| one.join().map_err(|_panicked| anyhow!("a client panicked"))?)
        })
    }

    fn install(client: &Client<'_>) -> Result<()> {
        client.update()?;
        client.install_only(&PACKAGES[..1])
    }

    fn update(client: &Client<'_>) -> Result<()> {
        client.update()
    }

    fn version(client: &Client<'_>, package: &str) -> Result<String> {
        let argv = ["dpkg-query", "--show", "--showformat", "${Version}", package];
        client.node().ok(&argv)
    }

    #[test]
    fn r14_ten_nodes_at_once_cost_the_origin_one_of_each_and_go_on_without_it() -> Result<()> {
        let lab = lab(10)?;
        let mut archive = Archive::start(&lab)?;
        let _cache = cache(&lab, &archive.url)?;
        let clients = clients(&lab, &archive, 10)?;
        at_once(&clients, install)?;
        let requests = archive.requests()?;
        for request in requests.iter().filter(|request| request.status == 200) {
            let same = |other: &&Request| other.status == 200 && other.path == request.path;
            let times = requests.iter().filter(same).count();
            assert_eq!(times, 1, "{} crossed more than once: {requests:#?}", request.path);
        }
        assert_eq!(requests.iter().filter(|request| request.is_package()).count(), 2);

        archive.stop();
        let key = archive.public_key()?;
        at_once(&clients, |client| {
            client.node().ok(&["dpkg", "--purge", PACKAGES[0], PACKAGES[1]])?;
            client.prepare(&archive.url, &key)?;
            install(client)?;
            assert_eq!(version(client, PACKAGES[1])?, "1.0+lab");
            Ok(())
        })
    }

    /// The archive changes whenever a request of the cache has come, and has nothing of the other generation.
    #[test]
    fn p06_no_change_of_the_archive_gives_apt_a_hash_sum_mismatch() -> Result<()> {
        let lab = lab(3)?;
        let archive = Archive::start(&lab)?;
        let _cache = cache(&lab, &archive.url)?;
        let clients = clients(&lab, &archive, 3)?;
        at_once(&clients, install)?;
        let is_over = std::sync::atomic::AtomicBool::new(false);
        let outcome = thread::scope(|scope| {
            let flipping = scope.spawn(|| -> Result<usize> {
                let (mut flips, mut seen) = (0, requests(&lab)?.len());
                while !is_over.load(std::sync::atomic::Ordering::SeqCst) {
                    let now = requests(&lab)?.len();
                    if now > seen {
                        seen = now;
                        flips += 1;
                        flip(&lab, 1 + flips % 2)?;
                    }
                    thread::yield_now();
                }
                Ok(flips)
            });
            let outcome = (0..6).try_for_each(|_| at_once(&clients, update));
            is_over.store(true, std::sync::atomic::Ordering::SeqCst);
            let flips = flipping
                .join()
                .map_err(|_panicked| anyhow!("the archive stopped changing"))??;
            outcome.map(|()| flips)
        });
        let flips = outcome?;
        let is_new = |request: &Request| request.status == 200 && request.path.ends_with("/InRelease");
        let documents = requests(&lab)?.iter().filter(|request| is_new(request)).count();
        assert!(
            flips > 3 && documents > 1,
            "the archive changed {flips} times, and the cache saw {documents} documents"
        );

        // What is in force in the end is what everybody gets.
        archive.flip(2)?;
        at_once(&clients, |client| {
            client.update()?;
            client.install_only(&PACKAGES[..1])?;
            assert_eq!(version(client, PACKAGES[0])?, "2.0+lab");
            Ok(())
        })
    }

    #[test]
    fn a_package_that_was_damaged_on_the_way_is_refused_and_never_stored() -> Result<()> {
        let lab = lab(1)?;
        let archive = Archive::start(&lab)?;
        let _cache = cache(&lab, &archive.url)?;
        let client = clients(&lab, &archive, 1)?.pop().context("no client")?;
        client.update()?;
        let file = archive.package(PACKAGES[0], 1);
        let right = fs::read(&file)?;
        let mut wrong = right.clone();
        *wrong.last_mut().context("an empty package")? ^= 1;
        durable::write(&file, &wrong, 0o644)?;
        let refused = client.install_only(&PACKAGES[..1]).unwrap_err().to_string();
        assert!(refused.contains("502"), "{refused}");
        assert!(!refused.contains("Hash Sum mismatch"), "{refused}");
        let of_it = |request: &&Request| request.is_package() && request.path.contains(PACKAGES[0]);
        let asked = archive.requests()?.iter().filter(of_it).count();
        assert_eq!(
            asked, 2,
            "once, and once more to be sure, however often apt tries"
        );

        durable::write(&file, &right, 0o644)?;
        let since = Instant::now();
        while let Err(error) = client.install_only(&PACKAGES[..1]) {
            assert!(since.elapsed() < SOON, "it stays refused: {error}");
        }
        assert_eq!(version(&client, PACKAGES[0])?, "1.0+lab");
        Ok(())
    }
}
