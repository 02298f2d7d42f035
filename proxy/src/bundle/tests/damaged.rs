//! Media that have lost some of their bytes, in one copy or in all, or that go away.

use std::{collections::BTreeSet, fs, io, ops::Range};

use kato_shared::durable;

use super::{
    super::{
        Fault,
        header::{Member, Volume},
        medium::Sink,
        tar::{self, Name},
        volume::{Passed, Reading, Source},
    },
    kit::Lab,
    volumes::in_volumes,
    *,
};

/// A volume in memory, a part of which cannot be read.
struct Torn {
    bytes: Vec<u8>,
    bad: Range<u64>,
}

impl Source for Torn {
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        let rest = self.bytes.get(usize::try_from(at).unwrap()..).unwrap_or_default();
        let mut count = rest.len().min(into.len());
        if self.bad.contains(&at) {
            return Err(rustix::io::Errno::IO.into());
        }
        if at < self.bad.start {
            count = count.min(usize::try_from(self.bad.start - at).unwrap());
        }
        into[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
}

/// Wants everything.
struct All;

impl Sink for All {
    fn wants(&mut self, _name: &Name, _member: &Member) -> bool {
        true
    }

    fn piece(&mut self, _name: &Name, _member: &Member, _bytes: &[u8]) -> Result<(), BundleError> {
        Ok(())
    }

    fn end(&mut self, _name: &Name, _member: &Member, _is_whole: bool) -> Result<(), BundleError> {
        Ok(())
    }
}

fn members(bundle: &Bundle, volume: &Volume) -> BTreeSet<Name> {
    let members = bundle.table.iter();
    members
        .filter(|(_, member)| member.volume == volume.n)
        .map(|(name, _)| *name)
        .collect()
}

fn read(bundle: &Bundle, volume: &Volume, source: &dyn Source) -> Passed {
    let wanted = members(bundle, volume);
    Reading::new(&bundle.table, volume, source)
        .members(&wanted, &mut All)
        .unwrap()
}

/// Where the members of a volume lie, each with its header and without its padding.
fn extents(bytes: &[u8]) -> Vec<(Name, Range<u64>)> {
    let (mut at, mut found) = (0, Vec::new());
    loop {
        let place = usize::try_from(at).unwrap();
        let block = bytes[place..place + 512].try_into().unwrap();
        let Some(header) = tar::Header::parse(block).unwrap() else {
            return found;
        };
        found.push((header.name, at..at + tar::BLOCK + header.size));
        at += tar::room(header.size);
    }
}

/// A bundle in volumes, and the bytes of each.
fn bundle(lab: &Lab) -> (Bundle, Vec<(Volume, Vec<u8>)>) {
    let here = lab.site("here");
    here.fill(0..40);
    let bundle = opened(lab, &lab.export(&here, &in_volumes()));
    let folder = bundle.head.parent().unwrap();
    let volumes = bundle.header.volumes.iter();
    let volumes = volumes
        .map(|volume| (volume.clone(), fs::read(folder.join(&volume.file)).unwrap()))
        .collect();
    (bundle, volumes)
}

#[test]
fn what_cannot_be_read_costs_the_members_that_it_lies_in_and_no_other() {
    let lab = Lab::new();
    let (bundle, volumes) = bundle(&lab);
    let mut most = 0;
    for (volume, bytes) in &volumes {
        let all = extents(bytes);
        for start in (0..volume.size).step_by(4096) {
            for length in [4096, 20_480] {
                let bad = start..start + length;
                let hit = |range: &Range<u64>| range.start < bad.end && bad.start < range.end;
                let lost: BTreeSet<Name> = all
                    .iter()
                    .filter(|(_, range)| hit(range))
                    .map(|(name, _)| *name)
                    .collect();
                let torn = Torn {
                    bytes: bytes.clone(),
                    bad: bad.clone(),
                };
                let passed = read(&bundle, volume, &torn);
                let gone: BTreeSet<Name> = members(&bundle, volume)
                    .difference(&passed.whole)
                    .copied()
                    .collect();
                assert_eq!(gone, lost, "{} at {start}", volume.file);
                assert!(!passed.findings.is_empty(), "{} at {start}", volume.file);
                // Zeros, as programs that rescue media leave them.
                let mut zeroed = bytes.clone();
                let end = usize::try_from(bad.end).unwrap().min(zeroed.len());
                zeroed[usize::try_from(start).unwrap()..end].fill(0);
                let passed = read(
                    &bundle,
                    volume,
                    &Torn {
                        bytes: zeroed,
                        bad: 0..0,
                    },
                );
                let gone: BTreeSet<Name> = members(&bundle, volume)
                    .difference(&passed.whole)
                    .copied()
                    .collect();
                assert_eq!(gone, lost, "zeros in {} at {start}", volume.file);
                most = most.max(lost.len());
            }
        }
    }
    assert!(most > 1, "nothing was lost");
}

#[test]
fn a_volume_that_cannot_be_read_at_all_ends() {
    let lab = Lab::new();
    let (bundle, volumes) = bundle(&lab);
    let (volume, _) = &volumes[0];
    // Of a size at which single steps would not.
    let volume = Volume {
        size: 1 << 40,
        ..volume.clone()
    };
    let torn = Torn {
        bytes: Vec::new(),
        bad: 0..u64::MAX,
    };
    let passed = read(&bundle, &volume, &torn);
    assert!(passed.whole.is_empty());
    assert_eq!(passed.findings.len(), 2, "{:?}", passed.findings);
}

#[test]
fn each_byte_of_a_volume_counts() {
    let lab = Lab::new();
    let (bundle, volumes) = bundle(&lab);
    for (volume, bytes) in volumes.iter().skip(1).take(2) {
        let mut torn = Torn {
            bytes: bytes.clone(),
            bad: 0..0,
        };
        let paddings = extents(bytes).into_iter().map(|(_, range)| range.end);
        let places = paddings
            .filter(|end| end % tar::BLOCK != 0)
            .map(|end| usize::try_from(end).unwrap())
            .chain((0..bytes.len()).step_by(331))
            .chain([bytes.len() - 1]);
        for at in places {
            torn.bytes[at] ^= 1;
            let passed = read(&bundle, volume, &torn);
            assert!(!passed.findings.is_empty(), "{} at {at}", volume.file);
            torn.bytes[at] ^= 1;
        }
        assert!(read(&bundle, volume, &torn).findings.is_empty());
    }
}

#[test]
fn a_good_copy_beside_a_damaged_one_is_taken() {
    let lab = Lab::new();
    let (bundle, volumes) = bundle(&lab);
    let (volume, bytes) = volumes
        .iter()
        .find(|(_, bytes)| extents(bytes).len() > 5)
        .unwrap();
    let first = bundle.head.parent().unwrap().join(&volume.file);
    let (spare, other) = (lab.folder.path().join("spare"), lab.folder.path().join("other"));
    fs::create_dir(&spare).unwrap();
    fs::create_dir(&other).unwrap();
    let others = [bundle.head.parent().unwrap().to_owned(), spare.clone()];
    let flipped = |at: u64| {
        let mut flipped = bytes.clone();
        flipped[usize::try_from(at).unwrap()] ^= 1;
        flipped
    };
    let extents = extents(bytes);
    let (one, two) = (extents[1].1.end - 1, extents[3].1.end - 1);
    let cut = bytes[..1000].to_vec();
    let stranger = vec![7; bytes.len()];
    for (nth, (here, there)) in [
        (flipped(one), bytes.clone()),
        (cut, bytes.clone()),
        (stranger, bytes.clone()),
        // Neither is whole, and together they have everything.
        (flipped(one), flipped(two)),
    ]
    .into_iter()
    .enumerate()
    {
        durable::write(&first, &here, 0o644).unwrap();
        durable::write(&spare.join(&volume.file), &there, 0o644).unwrap();
        let report = verify(&bundle, &others, Depth::Full).unwrap();
        assert!(report.is_good(), "{nth}: {:?}", report.findings);
        let site = lab.site(&format!("there-{nth}"));
        let mut importing = site.importing();
        importing.others = others.to_vec();
        let imported = importing.run(&bundle).unwrap();
        assert!(imported.findings.is_empty(), "{nth}: {:?}", imported.findings);
        assert!(imported.active.is_some(), "{nth}");
    }
    // The same is wrong in both.
    durable::write(&first, &flipped(one), 0o644).unwrap();
    durable::write(&spare.join(&volume.file), &flipped(one), 0o644).unwrap();
    let report = verify(&bundle, &others, Depth::Full).unwrap();
    let said: Vec<&str> = report.findings.iter().map(|found| found.what.as_str()).collect();
    assert_eq!(said, [extents[1].0.path()]);
}

/// Takes the medium away in the middle.
struct Pulling(std::path::PathBuf);

impl Sink for Pulling {
    fn wants(&mut self, _name: &Name, _member: &Member) -> bool {
        true
    }

    fn piece(&mut self, _name: &Name, _member: &Member, _bytes: &[u8]) -> Result<(), BundleError> {
        if self.0.exists() {
            durable::rename(&self.0, &self.0.with_extension("pulled")).unwrap();
        }
        Ok(())
    }

    fn end(&mut self, _name: &Name, _member: &Member, _is_whole: bool) -> Result<(), BundleError> {
        Ok(())
    }
}

#[test]
fn a_medium_that_goes_away_is_said_once() {
    for order in [Order::default(), in_volumes()] {
        let lab = Lab::new();
        let here = lab.site("here");
        here.fill(0..40);
        let folder = lab.export(&here, &order);
        let bundle = opened(&lab, &folder);
        let findings = bundle.walk(&[], &mut Pulling(folder)).unwrap();
        let [gone] = findings.as_slice() else {
            panic!("{findings:?}");
        };
        assert_eq!(gone.fault, Fault::Gone, "{gone:?}");
    }
}
