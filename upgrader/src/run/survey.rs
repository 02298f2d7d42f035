//! `kato node survey`: measures what Core wants to know before it changes anything. Reads only; for Core, not for people.
//!
//! Only what has no answer of its own ends it: a platform, a local change or a line that tells nothing is told as such.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use kato_shared::Digest;
use tokio::{net::TcpStream, time::timeout};

use super::{
    Node, cordon,
    kept::{self, Spare},
};
use crate::{
    attempt::Attempt,
    customizations::{Change, Fate, patched, scan},
    exit::{Exit, Failure},
    installed::Installed,
    lock,
    module::{self, ModuleError, tree},
    patch::record::Patches,
    plan::survey::{AtRisk, Measured, SCHEMA, Survey},
    platform,
    report::terminal,
    space,
};

/// How long the machine of the cache may take to answer or to refuse.
const REACH: Duration = Duration::from_secs(5);

/// What Core asks.
#[derive(Debug, Default)]
pub struct Asked {
    /// Paths to measure, as releases name them.
    pub places: Vec<PathBuf>,
    /// Whether local changes are looked for: every installed file is read.
    pub local_changes: bool,
    /// Host and port of the cache.
    pub cache: Option<String>,
}

/// Measures what is `asked` and prints the document.
///
/// # Errors
/// [`Failure`] when a path cannot be read. A platform that gives no answer about its capacity is no failure.
pub async fn survey(node: &Node, asked: &Asked) -> Result<Exit, Failure> {
    let paths = &node.paths;
    let mut places = BTreeMap::new();
    for path in &asked.places {
        let here = module::follow(paths, path).unwrap_or_else(|_outside| paths.on_node(path));
        let is_root = path == Path::new("/");
        places.insert(path.clone(), measure(&here, !is_root)?);
    }
    let folders = [paths.staging(), paths.backups(), paths.work()];
    for folder in folders {
        let found = measure(&folder, false)?;
        places.insert(folder, found);
    }
    // A record that cannot be read has an error of its own in the run that needs it.
    let attempt = Attempt::load(paths).unwrap_or_default();
    let spare = kept::spare(paths, attempt.as_ref()).unwrap_or_default();
    makes_way(&spare, &mut places, &paths.staging());
    terminal::json(&Survey {
        schema: SCHEMA,
        node: node.id.clone(),
        time: node.clock.now(),
        memory_available: memory_available(&paths.on_node(Path::new("/proc/meminfo"))),
        staged: &staged(&paths.staging()) - &spare.digests,
        places,
        staging: paths.staging(),
        backups: paths.backups(),
        work: paths.work(),
        is_drained: cordon::is_drained(node),
        capacity: platform::capacity(node.platform.as_ref(), &node.words())
            .await
            .unwrap_or_else(|error| {
                tracing::warn!(%error, "the platform does not say how much work it could take");
                None
            }),
        patches: Some(Patches::load(paths)?),
        at_risk: asked.local_changes.then(|| at_risk(node)).flatten(),
        held_by: lock::holder(&paths.lock()).map(|holder| holder.run),
        cut_off: match &asked.cache {
            Some(cache) => cut_off(cache).await,
            None => None,
        },
    });
    Ok(Exit::Done)
}

/// What is kept of a release that was rolled back makes way for another: its room counts as free, and it as not there.
fn makes_way(spare: &Spare, places: &mut BTreeMap<PathBuf, Measured>, staging: &Path) {
    let here = places.get(staging).map(|found| found.device);
    for found in places.values_mut() {
        if Some(found.device) == here {
            found.free = found.free.saturating_add(spare.bytes);
        }
    }
}

/// Local changes that an upgrade may take away; `None` where they cannot be found out.
fn at_risk(node: &Node) -> Option<AtRisk> {
    let installed = match Installed::load(&node.paths) {
        Ok(Some(installed)) => installed,
        Ok(None) => return Some(AtRisk::default()),
        Err(error) => {
            tracing::warn!(%error, "local changes are not known");
            return None;
        }
    };
    let found = patched(&node.paths, &installed).and_then(|installed| scan(&node.paths, &installed));
    let found = found.inspect_err(|error| tracing::warn!(%error, "local changes are not known"));
    let is_at_risk = |change: &Change| change.at_worst == Fate::Refused || change.at_worst.takes_away();
    let changes = found.ok()?.changes.into_iter().filter(is_at_risk);
    Some(AtRisk::of(changes.map(|change| change.path)))
}

/// Why the machine at `cache` cannot be reached. One that refuses is there: its cache is started later.
async fn cut_off(cache: &str) -> Option<String> {
    match timeout(REACH, TcpStream::connect(cache)).await {
        Ok(Ok(_there)) => None,
        Ok(Err(refused)) if refused.kind() == io::ErrorKind::ConnectionRefused => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_late) => Some(format!("no answer within {} s", REACH.as_secs())),
    }
}

fn measure(here: &Path, with_size: bool) -> Result<Measured, Failure> {
    let reading = |source| ModuleError::io("reading", here)(source);
    let mount = space::mount_of(here).map_err(reading)?;
    let is_there = with_size && here.symlink_metadata().is_ok();
    let bytes = is_there.then(|| tree::saved_size(here)).transpose();
    Ok(Measured {
        bytes: bytes.map_err(reading)?,
        device: mount.device,
        mount: mount.point,
        free: mount.free,
        free_inodes: mount.free_inodes,
        block: mount.block,
        is_read_only: mount.is_read_only,
    })
}

/// The artifacts that were downloaded and verified: their files are called by their digests.
fn staged(folder: &Path) -> BTreeSet<Digest> {
    let names = fs::read_dir(folder).into_iter().flatten().flatten();
    names
        .filter_map(|item| format!("sha256:{}", item.file_name().to_str()?).parse().ok())
        .collect()
}

/// `MemAvailable` of `proc_meminfo(5)`, in bytes.
fn memory_available(meminfo: &Path) -> Option<u64> {
    let text = fs::read_to_string(meminfo).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_read_in_bytes_and_absent_where_it_is_not_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("meminfo");
        assert_eq!(memory_available(&file), None);
        let text = "MemTotal:        8000 kB\nMemAvailable:    2000 kB\n";
        kato_shared::durable::write(&file, text.as_bytes(), 0o644).unwrap();
        assert_eq!(memory_available(&file), Some(2_048_000));
    }

    #[test]
    fn only_whole_downloads_count_as_staged() {
        let folder = tempfile::tempdir().unwrap();
        let digest = Digest::of(b"x");
        for name in [digest.hex(), format!("{}.part", digest.hex()), "notes".into()] {
            kato_shared::durable::write(&folder.path().join(name), b"x", 0o644).unwrap();
        }
        assert_eq!(staged(folder.path()), [digest].into());
    }
}
