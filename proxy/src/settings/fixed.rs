//! What cannot be replaced while serving.
//!
//! Bound sockets, the open store and the log are made once. A reload that asks for others gets everything else, and is told these
//! keys by name; the settings in force go on saying what is true.

use super::Settings;

/// Keeps the running value of one key where the settings read anew differ.
macro_rules! keep {
    ($kept:ident, $running:ident, $read:ident: $($key:ident).+) => {
        if $read.$($key).+ != $running.$($key).+ {
            $read.$($key).+.clone_from(&$running.$($key).+);
            $kept.push(concat!($(".", stringify!($key)),+).trim_start_matches('.'));
        }
    };
}

impl Settings {
    /// Gives every key that needs a restart its value of `running`, and returns the names of those that would have changed.
    pub fn keep_fixed(&mut self, running: &Self) -> Vec<&'static str> {
        let mut kept = Vec::new();
        keep!(kept, running, self: listen.data);
        keep!(kept, running, self: listen.tls);
        keep!(kept, running, self: listen.admin);
        keep!(kept, running, self: listen.admin_socket);
        keep!(kept, running, self: cache.dir);
        keep!(kept, running, self: cache.max_size);
        keep!(kept, running, self: cache.min_free);
        keep!(kept, running, self: cache.max_objects);
        keep!(kept, running, self: cache.memory);
        keep!(kept, running, self: log.format);
        keep!(kept, running, self: log.filter);
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_a_restart_is_kept_and_named_and_nothing_else() {
        let running = Settings::default();
        let mut read = Settings::default();
        assert!(read.keep_fixed(&running).is_empty());
        read.listen.data.set_port(1);
        read.cache.dir = "/elsewhere".into();
        read.limits.connections = 7;
        read.offline = true;
        assert_eq!(read.keep_fixed(&running), ["listen.data", "cache.dir"]);
        assert_eq!(read.listen, running.listen);
        assert_eq!(read.cache, running.cache);
        assert_eq!(read.limits.connections, 7);
        assert!(read.offline);
    }
}
