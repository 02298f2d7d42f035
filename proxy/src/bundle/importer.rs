//! Which versions of this program may take a bundle in: what a later format needs to say to an earlier program.

/// That this program is older than a bundle demands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the bundle needs kato-proxy {needed} or newer, this is {own}\nhint: import it with a newer kato-proxy"
)]
pub struct TooOld {
    /// What is demanded.
    needed: String,
    /// The version of this program.
    own: &'static str,
}

/// Whether this program is of version `needed` or newer.
///
/// # Errors
/// [`TooOld`], also for a text that is no version.
pub(super) fn check(needed: &str) -> Result<(), TooOld> {
    let own = env!("CARGO_PKG_VERSION");
    match (version(needed), version(own)) {
        (Some(at_least), Some(found)) if at_least <= found => Ok(()),
        _ => Err(TooOld {
            needed: needed.to_owned(),
            own,
        }),
    }
}

/// The up to three numbers of a version, without what may follow them.
fn version(text: &str) -> Option<[u64; 3]> {
    let mut numbers = [0; 3];
    let mut parts = text.split(['-', '+']).next()?.split('.');
    for (number, part) in numbers.iter_mut().zip(&mut parts) {
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_version_and_what_is_none_are_refused() {
        for needed in ["0", "0.0.1", env!("CARGO_PKG_VERSION")] {
            assert_eq!(check(needed), Ok(()), "{needed}");
        }
        for needed in ["99.0", "99", "", "newest", "1.2.3.4", "-1"] {
            assert!(check(needed).is_err(), "{needed}");
        }
        assert_eq!(version("1.20.3-rc.1+a"), Some([1, 20, 3]));
    }
}
