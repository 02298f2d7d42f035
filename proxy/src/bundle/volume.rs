//! Reading a volume: a tar whose members are known from the signed table.
//!
//! A header that cannot be believed, or that says something else than the table, is a finding; the next member is then looked for, so that
//! one damaged block costs one member and not the volume.

use std::{collections::BTreeSet, fs::File, io::Read};

use super::{
    BundleError,
    finding::{Finding, finding},
    header::{Member, Table, Volume},
    medium::{Sink, pass, skip},
    tar::{self, BLOCK, Name},
};

/// A volume that is being read.
pub(super) struct Reading<'b> {
    table: &'b Table,
    volume: &'b Volume,
    seen: BTreeSet<Name>,
    /// Bytes of the file that were not read yet.
    left: u64,
    /// Whether the last header could not be believed: the next one that the table knows is looked for, block by block. Bytes of a payload
    /// that look like one do no harm, since the digest decides.
    is_lost: bool,
}

impl<'b> Reading<'b> {
    /// From the beginning of `volume`, whose members are in `table`.
    pub(super) fn new(table: &'b Table, volume: &'b Volume) -> Self {
        Self {
            table,
            volume,
            seen: BTreeSet::new(),
            left: volume.size,
            is_lost: false,
        }
    }

    /// The members that were met.
    pub(super) fn seen(&self) -> &BTreeSet<Name> {
        &self.seen
    }

    /// Shows those of its members that are `wanted` to `sink`; what is wrong goes into `findings`.
    pub(super) fn members(
        &mut self,
        mut file: File,
        wanted: &BTreeSet<Name>,
        sink: &mut dyn Sink,
        findings: &mut Vec<Finding>,
    ) -> Result<(), BundleError> {
        let failed = |error| BundleError::file("reading", &self.volume.file)(error);
        while self.left >= BLOCK {
            let at = self.volume.size - self.left;
            let mut block = [0_u8; 512];
            file.read_exact(&mut block).map_err(failed)?;
            self.left -= BLOCK;
            let member = match tar::Header::parse(&block) {
                Ok(None) if self.is_lost => continue,
                Ok(None) => {
                    let problem = self.end(&mut file).err();
                    findings.extend(
                        problem.map(|problem| finding(&self.volume.file, Some(self.volume), problem)),
                    );
                    return Ok(());
                }
                Ok(Some(header)) => self
                    .judge(&header)
                    .map_err(|problem| (header.name.path(), problem)),
                Err(error) => Err((format!("the header at byte {at}"), error.to_string())),
            };
            let (name, member) = match member {
                Ok(member) => member,
                Err((what, problem)) => {
                    if !self.is_lost {
                        findings.push(finding(&what, Some(self.volume), problem));
                    }
                    self.is_lost = true;
                    continue;
                }
            };
            self.is_lost = false;
            self.seen.insert(name);
            self.left -= tar::room(member.size) - BLOCK;
            if wanted.contains(&name) {
                let problem = pass(&mut file.by_ref().take(member.size), &name, &member, sink)?;
                findings.extend(problem.map(|problem| finding(&member.path, Some(self.volume), problem)));
                skip(&mut file, tar::padding(member.size)).map_err(failed)?;
            } else {
                skip(&mut file, member.size + tar::padding(member.size)).map_err(failed)?;
            }
        }
        let problem = "the volume ends without its end mark".to_owned();
        findings.push(finding(&self.volume.file, Some(self.volume), problem));
        Ok(())
    }

    /// The member of a header, if the table says the same about it.
    fn judge(&self, header: &tar::Header) -> Result<(Name, Member), String> {
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
        if taken > self.left {
            return Err(format!(
                "the member has {taken} bytes, the volume {} more",
                self.left
            ));
        }
        Ok((header.name, member.clone()))
    }

    /// Behind the last member there are two blocks of zeros and nothing else.
    fn end(&self, file: &mut File) -> Result<(), String> {
        let mut rest = Vec::new();
        file.take(tar::END)
            .read_to_end(&mut rest)
            .map_err(|error| error.to_string())?;
        if self.left != tar::END - BLOCK
            || rest.len() as u64 != self.left
            || rest.iter().any(|byte| *byte != 0)
        {
            return Err("the volume goes on behind its end".to_owned());
        }
        Ok(())
    }
}
