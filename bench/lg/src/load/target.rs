//! What is asked for: request targets, the files that their bodies must equal, and when and how fast each is read.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, bail};

/// One line of the list: `TARGET [TAB FILE [TAB at=S,pace=BYTES,stop=S]]`.
#[derive(Debug)]
pub(crate) struct Target {
    /// As it stands in the request line.
    pub(crate) name: String,
    /// The whole request.
    pub(crate) request: Vec<u8>,
    /// What the body must equal.
    expected: Option<Expected>,
    /// Not before this time after the start.
    pub(crate) at: Duration,
    /// Bytes per second that its client reads, 0 for as fast as they come.
    pub(crate) pace: u64,
    /// Its client goes away this long after its request.
    pub(crate) stop: Option<Duration>,
}

#[derive(Debug)]
struct Expected {
    file: File,
    length: u64,
}

impl Target {
    /// Reads a line. `fields` are the header fields of every request, each ended by CRLF; the file is opened only `verified`.
    ///
    /// # Errors
    /// When the file cannot be opened or an option is not known.
    pub(crate) fn parse(line: &str, host: &str, fields: &str, verified: bool) -> Result<Self> {
        let mut columns = line.split('\t');
        let name = columns.next().unwrap_or_default().to_owned();
        let file = columns.next().filter(|path| verified && !path.is_empty());
        let mut target = Self {
            request: format!(
                "GET {name} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: lg\r\nAccept: */*\r\n{fields}\r\n"
            )
            .into_bytes(),
            name,
            expected: file.map(Expected::open).transpose()?,
            at: Duration::ZERO,
            pace: 0,
            stop: None,
        };
        for option in columns
            .next()
            .unwrap_or_default()
            .split(',')
            .filter(|option| !option.is_empty())
        {
            let (key, value) = option
                .split_once('=')
                .with_context(|| format!("`{option}` has no value"))?;
            match key {
                "at" => target.at = Duration::from_secs_f64(value.parse()?),
                "pace" => target.pace = value.parse()?,
                "stop" => target.stop = Some(Duration::from_secs_f64(value.parse()?)),
                _ => bail!("`{key}` is not at, pace or stop"),
            }
        }
        Ok(target)
    }

    /// Whether it has to be looked after by the clock.
    pub(crate) fn is_timed(&self) -> bool {
        !self.at.is_zero() || self.pace > 0 || self.stop.is_some()
    }

    /// The length of the file that the body must equal.
    pub(crate) fn expected_length(&self) -> Option<u64> {
        self.expected.as_ref().map(|expected| expected.length)
    }

    /// Whether `data` is what stands at `offset`; never without a file. `scratch` grows as needed.
    pub(crate) fn equals(&self, offset: u64, data: &[u8], scratch: &mut Vec<u8>) -> bool {
        let Some(expected) = &self.expected else {
            return false;
        };
        scratch.resize(scratch.len().max(data.len()), 0);
        let right = &mut scratch[..data.len()];
        expected.file.read_exact_at(right, offset).is_ok() && right == data
    }
}

impl Expected {
    fn open(path: &str) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot open `{path}`"))?;
        let length = file.metadata()?.len();
        Ok(Self { file, length })
    }
}

/// Reads a list of targets.
///
/// # Errors
/// When the file cannot be read.
pub(crate) fn lines(path: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    Ok(text
        .lines()
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_target_file_and_times() {
        let target = Target::parse("/a\t\tat=0.5,pace=2000,stop=1.5", "h", "X: y\r\n", true).unwrap();
        assert_eq!(target.name, "/a");
        assert_eq!(target.at, Duration::from_millis(500));
        assert_eq!(
            (target.pace, target.stop),
            (2000, Some(Duration::from_millis(1500)))
        );
        let request = String::from_utf8(target.request).unwrap();
        assert!(request.starts_with("GET /a HTTP/1.1\r\nHost: h\r\n") && request.ends_with("X: y\r\n\r\n"));
    }

    #[test]
    fn unknown_options_are_refused() {
        assert!(Target::parse("/a\t\tspeed=1", "h", "", false).is_err());
        assert!(Target::parse("/a\t/no/such/file", "h", "", true).is_err());
    }
}
