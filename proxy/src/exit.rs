//! Exit codes of `kato-proxy`, a part of the registry in the README.

/// Done.
pub const DONE: u8 = 0;
/// A bug: something happened that no other code describes.
pub const BUG: u8 = 1;
/// The diagnosis of `doctor` is that clients will fail. The number is that of a bug, as with other programs that check.
pub const UNHEALTHY: u8 = 1;
/// Wrong usage or settings.
pub const USAGE: u8 = 2;
/// This host refuses: a port in use, a folder that cannot be written, a foreign store.
pub const REFUSED: u8 = 20;
/// Something stored is not what its digest says.
pub const VERIFICATION_FAILED: u8 = 21;
/// A signature, key or sequence is not trusted.
pub const TRUST_REFUSED: u8 = 26;
/// Try again later: the running proxy did not answer.
pub const TRY_AGAIN: u8 = 75;
