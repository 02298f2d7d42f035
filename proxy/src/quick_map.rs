//! Maps that every request looks into.
//!
//! Their hash is foldhash's, under a seed of this process: a fraction of the time of `SipHash`, of which a request would do twenty. It withstands
//! those who cannot see hashes; who may use this cache and could guess them would only make it slower. Where two keys with one hash would
//! be taken for one (`store::keys`), it stays `SipHash`.

use std::collections::HashMap;

/// See the module.
pub(crate) type QuickMap<K, V> = HashMap<K, V, hashbrown::DefaultHashBuilder>;
