//! Reading a volume: a tar whose members are known from the signed table.
//!
//! A header that cannot be read or believed, or that says something else than the table, is a finding; the next member is then looked for, so
//! that one damaged block costs one member and not the volume. Nothing that is wrong with a volume ends the walk over the bundle.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
};

use super::{
    BundleError,
    finding::{Finding, finding},
    header::{Member, Table, Volume},
    medium::{Sink, pass},
    tar::{self, BLOCK, Name},
};

/// How far it goes on where nothing can be read: the unit in which media and page caches lose bytes.
const STEP: u64 = 4096;

/// After so many such steps in a row each is twice as far as the one before, up to 2^[`LONGEST`] steps: a drive may take seconds for each.
const PATIENCE: u32 = 16;
const LONGEST: u32 = 8;

/// What is read at a place.
pub(super) trait Source {
    /// As `pread`.
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize>;
}

impl Source for File {
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        FileExt::read_at(self, into, at)
    }
}

/// A part of a [`Source`].
struct Span<'s> {
    source: &'s dyn Source,
    at: u64,
    left: u64,
}

impl Read for Span<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(into.len());
        let count = self.source.read_at(&mut into[..most], self.at)?;
        self.at += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

/// A copy of a volume that is being read.
pub(super) struct Reading<'b> {
    table: &'b Table,
    volume: &'b Volume,
    source: &'b dyn Source,
    seen: BTreeSet<Name>,
    whole: BTreeSet<Name>,
    findings: Vec<Finding>,
    /// Where the next block is; beside it nothing says how far it has come, whatever failed before.
    at: u64,
    /// Steps in a row that failed.
    failed: u32,
    /// Whether the last header could not be believed: the next one that the table knows is looked for, block by block. Bytes of a payload
    /// that look like one do no harm, since the digest decides.
    is_lost: bool,
}

/// What came of a copy of a volume.
pub(super) struct Passed {
    /// The members that were met.
    pub(super) seen: BTreeSet<Name>,
    /// Those of the wanted ones that were what was signed.
    pub(super) whole: BTreeSet<Name>,
    /// What is wrong.
    pub(super) findings: Vec<Finding>,
}

impl<'b> Reading<'b> {
    /// From the beginning of `volume`, whose members are in `table` and whose bytes are in `source`.
    pub(super) fn new(table: &'b Table, volume: &'b Volume, source: &'b dyn Source) -> Self {
        Self {
            table,
            volume,
            source,
            seen: BTreeSet::new(),
            whole: BTreeSet::new(),
            findings: Vec::new(),
            at: 0,
            failed: 0,
            is_lost: false,
        }
    }

    /// Shows those of its members that are `wanted` to `sink`.
    ///
    /// # Errors
    /// Those of `sink`.
    pub(super) fn members(
        mut self,
        wanted: &BTreeSet<Name>,
        sink: &mut dyn Sink,
    ) -> Result<Passed, BundleError> {
        let end = self.volume.size.saturating_sub(tar::END);
        while self.at.saturating_add(BLOCK) <= self.volume.size {
            let at = self.at;
            let block = match self.block(at) {
                Ok(block) => block,
                Err(error) => {
                    self.lose(
                        &format!("the block at byte {at}"),
                        format!("it cannot be read: {error}"),
                    );
                    self.step();
                    continue;
                }
            };
            self.failed = 0;
            self.at += BLOCK;
            match tar::Header::parse(&block) {
                Ok(None) if at == end => {
                    self.end();
                    return Ok(self.passed());
                }
                // Programs that rescue media leave zeros for what they could not read.
                Ok(None) => self.lose(&format!("the header at byte {at}"), "it is zeros".to_owned()),
                Ok(Some(header)) => match self.judge(&header) {
                    Ok(member) => self.member(header.name, &member, wanted, sink)?,
                    Err(problem) => self.lose(&header.name.path(), problem),
                },
                Err(error) => self.lose(&format!("the header at byte {at}"), error.to_string()),
            }
        }
        self.wrong("the end of the volume", "it has no end mark".to_owned());
        Ok(self.passed())
    }

    fn passed(self) -> Passed {
        Passed {
            seen: self.seen,
            whole: self.whole,
            findings: self.findings,
        }
    }

    /// The block at `at`.
    fn block(&self, at: u64) -> io::Result<[u8; 512]> {
        let mut block = [0_u8; 512];
        let left = BLOCK;
        Span {
            source: self.source,
            at,
            left,
        }
        .read_exact(&mut block)?;
        Ok(block)
    }

    /// Goes on where a block could not be read.
    fn step(&mut self) {
        let step = STEP << self.failed.saturating_sub(PATIENCE).min(LONGEST);
        self.failed = self.failed.saturating_add(1);
        self.at = (self.at / STEP).saturating_mul(STEP).saturating_add(step);
    }

    fn wrong(&mut self, what: &str, problem: String) {
        self.findings.push(finding(what, Some(self.volume), problem));
    }

    /// From here on the next header is looked for; why is said once.
    fn lose(&mut self, what: &str, problem: String) {
        if !self.is_lost {
            self.wrong(what, problem);
        }
        self.is_lost = true;
    }

    /// Reads the member whose header was just read, if it is wanted, and goes on behind it.
    fn member(
        &mut self,
        name: Name,
        member: &Member,
        wanted: &BTreeSet<Name>,
        sink: &mut dyn Sink,
    ) -> Result<(), BundleError> {
        self.is_lost = false;
        self.seen.insert(name);
        if wanted.contains(&name) {
            let (source, at, left) = (self.source, self.at, member.size);
            match pass(&mut Span { source, at, left }, &name, member, sink)? {
                Some(problem) => self.wrong(&member.path, problem),
                None => {
                    self.whole.insert(name);
                }
            }
            self.padding(member);
        }
        self.at += tar::room(member.size) - BLOCK;
        Ok(())
    }

    /// What fills the last block of a member is zeros: no byte of a volume is without meaning.
    fn padding(&mut self, member: &Member) {
        let at = self.at + member.size;
        let left = tar::padding(member.size);
        let mut rest = Vec::new();
        let read = Span {
            source: self.source,
            at,
            left,
        }
        .read_to_end(&mut rest);
        let is_right = read.is_ok() && rest.len() as u64 == left && rest.iter().all(|byte| *byte == 0);
        if !is_right {
            let what = format!("the padding at byte {at}");
            self.wrong(&what, "it cannot be read, or is not zeros".to_owned());
        }
    }

    /// The member of a header, if the table says the same about it.
    fn judge(&self, header: &tar::Header) -> Result<Member, String> {
        let Some(member) = self.table.get(&header.name) else {
            return Err("the member is not in the signed table".to_owned());
        };
        if member.volume != self.volume.n {
            return Err(format!("the member belongs into volume {}", member.volume));
        }
        if member.size != header.size {
            return Err(format!(
                "the header says {} bytes, the signed table {}",
                header.size, member.size
            ));
        }
        if self.seen.contains(&header.name) {
            return Err("the member is in the volume twice".to_owned());
        }
        let taken = tar::room(member.size) - BLOCK;
        let left = self.volume.size - self.at;
        if taken > left {
            return Err(format!("the member has {taken} bytes, the volume {left} more"));
        }
        Ok(member.clone())
    }

    /// Behind the last member there are two blocks of zeros, of which one was read.
    fn end(&mut self) {
        let is_right = self.block(self.at).is_ok_and(|block| block == [0; 512]);
        if !is_right {
            self.wrong(
                "the end of the volume",
                "it cannot be read, or is not zeros".to_owned(),
            );
        }
    }
}
