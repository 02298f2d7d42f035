//! The proof of packages beside real apt, on archives that chance has made: alternatives, versions, `Provides`, `Conflicts`, `Breaks`, sources, and machines that
//! have something installed. Whatever apt fetches is needed; where apt refuses, so does the proof; it may refuse more, and never less.

use std::{collections::BTreeSet, fmt::Write as _, path::Path};

use anyhow::{Result, ensure};
use integration_tests::{
    archive, command, origin::Origin, origin::Resource, proxy::run_to_end, published::put,
};
use kato_shared::Digest;

use crate::SOON;

const SEED: u64 = 0x6b61_746f_2026;
const WORLDS: usize = 30;
/// The fewest of these that apt can and the proof does install.
const AGREED: usize = 9;
/// The most that apt can install and the proof leaves to apt's problem resolver.
const MOST_LEFT: usize = 4;

const NAMES: [&str; 9] = ["p0", "p1", "p2", "p3", "p4", "p5", "p6", "p7", "p8"];
const OTHERS: [&str; 3] = ["v0", "v1", "nowhere"];
const VERSIONS: [&str; 5] = ["1.0", "1.0-1", "2.0~rc1", "2.0", "1:0.5"];

/// Numbers by chance, the same each time (`SplitMix64`).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((word ^ (word >> 31)) % end as u64).unwrap_or_default()
    }

    fn one<'t>(&mut self, of: &[&'t str]) -> &'t str {
        of[self.below(of.len())]
    }

    fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }

    fn relation(&mut self, is_need: bool) -> String {
        let others = if self.percent(20) {
            &OTHERS[..]
        } else {
            &OTHERS[..2]
        };
        let name = if self.percent(80) {
            self.one(&NAMES)
        } else {
            self.one(others)
        };
        let mut text = name.to_owned();
        if is_need && self.percent(10) {
            text.push_str(":any");
        }
        if self.percent(40) {
            let relation = self.one(&[">=", ">=", "<<", "=", "<=", ">>"]);
            let _infallible = write!(text, " ({relation} {})", self.one(&VERSIONS));
        }
        text
    }

    fn need(&mut self) -> String {
        let alternatives: Vec<String> = (0..=self.below(3)).map(|_| self.relation(true)).collect();
        alternatives.join(" | ")
    }

    /// The fields of a package behind its name and version.
    fn fields(&mut self) -> String {
        let mut text = String::from("Architecture: amd64\nMaintainer: x\nDescription: x\n");
        let mut field = |name: &str, value: &str| {
            let _infallible = writeln!(text, "{name}: {value}");
        };
        if self.percent(30) {
            field("Multi-Arch", self.one(&["allowed", "foreign", "same"]));
        }
        if self.percent(60) {
            field(
                "Priority",
                self.one(&["optional", "important", "required", "extra"]),
            );
        }
        if self.percent(30) {
            field("Source", self.one(&["s1", "s2", "s1 (1.0)"]));
        }
        let needs: Vec<String> = (0..self.below(3)).map(|_| self.need()).collect();
        if !needs.is_empty() {
            field("Depends", &needs.join(", "));
        }
        for (name, chance) in [("Conflicts", 15), ("Breaks", 15)] {
            if self.percent(chance) {
                field(name, &self.relation(false));
            }
        }
        if self.percent(35) {
            field(
                "Provides",
                self.one(&["v0", "v1", "v0, p1", "p2 (= 2.0)", "v1 (= 1.0)"]),
            );
        }
        text
    }
}

/// A suite, what a machine has, and what is asked for.
struct World {
    suite: String,
    index: String,
    status: String,
    asked: BTreeSet<&'static str>,
}

impl World {
    fn new(dice: &mut Dice, number: usize) -> Self {
        let (mut index, mut status) = (String::new(), String::new());
        for name in NAMES {
            for version in VERSIONS {
                if !dice.percent(25) {
                    continue;
                }
                let fields = dice.fields();
                let file = format!("pool/{number}/{name}_{}_amd64.deb", version.replace(':', "."));
                let digest = Digest::of(file.as_bytes());
                let _infallible = writeln!(
                    index,
                    "Package: {name}\nVersion: {version}\n{fields}Filename: {file}\nSize: 1000\nSHA256: {}\n",
                    digest.hex()
                );
            }
            if dice.percent(15) {
                let version = dice.one(&VERSIONS);
                let _infallible = writeln!(
                    status,
                    "Package: {name}\nStatus: install ok installed\nVersion: {version}\nArchitecture: amd64\nMaintainer: x\nDescription: x\nBreaks: {}\n",
                    dice.relation(false)
                );
            }
        }
        Self {
            suite: format!("s{number}"),
            index,
            status,
            asked: (0..=dice.below(2)).map(|_| dice.one(&NAMES)).collect(),
        }
    }

    fn release(&self) -> String {
        format!(
            "Suite: {0}\nCodename: {0}\nArchitectures: amd64\nComponents: main\nDate: Mon, 23 Nov 2026 00:00:00 UTC\nSHA256:\n {1} {2} main/binary-amd64/Packages\n",
            self.suite,
            Digest::of(self.index.as_bytes()).hex(),
            self.index.len()
        )
    }

    /// What apt would fetch, by the names of the files; none where it installs nothing.
    fn by_apt(&self, folder: &Path) -> Result<Option<BTreeSet<String>>> {
        let root = folder.join(&self.suite);
        let packages = format!("dists/{}/main/binary-amd64", self.suite);
        put(&folder.join(packages), "Packages", self.index.as_bytes())?;
        put(
            &folder.join("dists").join(&self.suite),
            "Release",
            self.release().as_bytes(),
        )?;
        put(&root, "status", self.status.as_bytes())?;
        let source = format!(
            "deb [trusted=yes] file:{} {} main\n",
            folder.display(),
            self.suite
        );
        let list = put(&root, "sources.list", source.as_bytes())?;
        let options = [
            format!("Dir::Etc::SourceList={}", list.display()),
            "Dir::Etc::SourceParts=/dev/null".to_owned(),
            "APT::Architectures=amd64".to_owned(),
        ];
        let run = |words: &[&str]| command::run(archive::apt(&root, &options, words)?, SOON, &[]);
        let update = run(&["update"])?;
        ensure!(update.status.success(), "{update:?}");
        let mut install = vec![
            "install",
            "-y",
            "--no-install-recommends",
            "--allow-downgrades",
            "--print-uris",
        ];
        install.extend(&self.asked);
        let said = run(&install)?;
        let lines = String::from_utf8_lossy(&said.stdout).into_owned();
        let files = lines.lines().filter(|line| line.starts_with('\''));
        let files =
            files.filter_map(|line| Some(line.split('\'').nth(1)?.rsplit_once('/')?.1.replace("%7e", "~")));
        Ok(said.status.success().then(|| files.collect()))
    }
}

/// What the proof misses of a store that holds indexes alone: files by their names, and what else there is to say.
fn missed(said: &str) -> (BTreeSet<String>, Vec<&str>) {
    let gaps = said.lines().filter_map(|line| line.split_once("missing "));
    let (mut files, mut others) = (BTreeSet::new(), Vec::new());
    for (_, gap) in gaps.filter(|(_, gap)| gap.contains(" (apt for ")) {
        let url = gap.split([' ', ',']).next().unwrap_or_default();
        match url
            .rsplit_once('/')
            .filter(|(_, file)| file.strip_suffix(".deb").is_some())
        {
            Some((_, file)) => {
                files.insert(file.to_owned());
            }
            None => others.push(gap),
        }
    }
    (files, others)
}

/// A store in `folder` with the indexes of `worlds` alone.
async fn fill(folder: &Path, origin: &Origin, worlds: &[World]) -> Result<()> {
    let mut urls = String::new();
    for world in worlds {
        let dists = format!("/dists/{}", world.suite);
        let signed = format!(
            "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n{}",
            world.release()
        );
        for (path, body) in [
            (format!("{dists}/InRelease"), signed),
            (format!("{dists}/main/binary-amd64/Packages"), world.index.clone()),
        ] {
            writeln!(urls, "{}", origin.url(&path))?;
            origin.serve(&path, Resource::cacheable(body));
        }
    }
    let list = put(folder, "list", urls.as_bytes())?.display().to_string();
    let store = folder.join("store").display().to_string();
    let upstream = format!("a={}", origin.url("/"));
    let prefetch = ["prefetch", "--cache-dir", &store, "--upstream", &upstream];
    let ended = run_to_end(&[&prefetch[..], &["--list", &list]].concat()).await?;
    ensure!(ended.code == Some(0), "{ended:?}");
    Ok(())
}

/// What an export of the store in `folder` says that demands what `world` asks for.
async fn proof(folder: &Path, origin: &Origin, world: &World) -> Result<String> {
    let asked: Vec<String> = world.asked.iter().map(|name| format!("\"{name}\"")).collect();
    let mut text = format!(
        "[[apt]]\narchive = \"{}\"\nsuite = \"{}\"\ncomponents = [\"main\"]\narchitectures = [\"amd64\"]\npackages = [{}]\n",
        origin.url("").trim_end_matches('/'),
        world.suite,
        asked.join(", ")
    );
    if !world.status.is_empty() {
        writeln!(text, "status = \"{}/status\"", world.suite)?;
    }
    let file = put(folder, "site.toml", text.as_bytes())?.display().to_string();
    let at = |name: &str| folder.join(name).display().to_string();
    let (store, key, out) = (at("store"), at("key"), at("out"));
    let export = ["bundle", "export", "--series", "t", "--cache-dir", &store];
    let export = [&export[..], &["--key", &key, "--out", &out, "--declare", &file]].concat();
    Ok(run_to_end(&export).await?.stderr)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_real_apt_fetches_is_what_has_to_be_held() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    let origin = Origin::start().await?;
    let mut dice = Dice(SEED);
    let worlds: Vec<World> = (0..WORLDS).map(|number| World::new(&mut dice, number)).collect();
    fill(folder, &origin, &worlds).await?;
    let at = |name: &str| folder.join(name).display().to_string();
    let (key, public) = (at("key"), at("key.pub"));
    let made = run_to_end(&["bundle", "keygen", "--secret", &key, "--public", &public]).await?;
    ensure!(made.code == Some(0), "{made:?}");
    let (mut agreed, mut left) = (0, 0);
    for world in &worlds {
        let by_apt = world.by_apt(folder)?;
        let said = proof(folder, &origin, world).await?;
        let (files, others) = missed(&said);
        let context = || {
            let (suite, asked, index, status) = (&world.suite, &world.asked, &world.index, &world.status);
            format!("seed {SEED:#x}, {suite}: {asked:?} of\n{index}on\n{status}{said}")
        };
        match by_apt {
            Some(_) if !others.is_empty() => left += 1,
            Some(by_apt) => {
                ensure!(
                    files == by_apt,
                    "apt fetches {by_apt:?}, the proof {files:?}: {}",
                    context()
                );
                agreed += 1;
            }
            None => ensure!(
                !others.is_empty(),
                "apt installs nothing, the proof does: {}",
                context()
            ),
        }
    }
    ensure!(
        agreed >= AGREED && left <= MOST_LEFT,
        "{agreed} agreed, {left} left to apt's resolver"
    );
    Ok(())
}
