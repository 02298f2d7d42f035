//! Who listens on a TCP port of this machine, as far as `/proc` tells us: the address always, the process when it is
//! ours or we are root.

use std::{
    fmt, fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
};

/// A listener that is in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Where it listens.
    pub address: SocketAddr,
    /// The process, when it can be seen.
    pub process: Option<(i32, String)>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.process {
            Some((pid, name)) => write!(f, "{name} (process {pid}) listens on {}", self.address),
            None => write!(f, "a process of another user listens on {}", self.address),
        }
    }
}

/// A port that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("the cache cannot listen on {wanted}{}", holder.as_ref().map(|holder| format!(": {holder}")).unwrap_or_default())]
pub struct PortTaken {
    /// Where the cache should listen.
    pub wanted: SocketAddr,
    /// Who does, when somebody does.
    pub holder: Option<Holder>,
    /// Why binding failed.
    #[source]
    pub source: io::Error,
}

/// Whether `wanted` can be listened on now. The answer may be old when the cache binds; it then says so itself.
///
/// # Errors
/// [`PortTaken`] with the holder.
pub fn check_free(wanted: SocketAddr) -> Result<(), PortTaken> {
    match TcpListener::bind(wanted) {
        Ok(_released_at_once) => Ok(()),
        Err(source) => Err(PortTaken {
            wanted,
            holder: find(wanted),
            source,
        }),
    }
}

/// The listener that conflicts with `wanted`.
fn find(wanted: SocketAddr) -> Option<Holder> {
    let (address, inode) = ["/proc/net/tcp", "/proc/net/tcp6"]
        .into_iter()
        .flat_map(|table| listeners(&fs::read_to_string(table).unwrap_or_default()))
        .find(|(address, _)| conflicts(*address, wanted))?;
    Some(Holder {
        address,
        process: owner(&inode),
    })
}

fn conflicts(held: SocketAddr, wanted: SocketAddr) -> bool {
    held.port() == wanted.port()
        && (held.ip().to_canonical() == wanted.ip().to_canonical()
            || held.ip().is_unspecified()
            || wanted.ip().is_unspecified())
}

/// Address and socket inode of every listener in a table of `/proc/net` (`proc_net_tcp`).
fn listeners(table: &str) -> Vec<(SocketAddr, String)> {
    /// `TCP_LISTEN` of the kernel's `tcp_states.h`.
    const LISTEN: &str = "0A";
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<_> = line.split_ascii_whitespace().collect();
            let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
            (*state == LISTEN).then_some(())?;
            Some((address(local)?, (*inode).to_owned()))
        })
        .collect()
}

/// `0100007F:0C6C` or its IPv6 form: 32-bit words in the machine's byte order, the port in the usual one.
fn address(text: &str) -> Option<SocketAddr> {
    let (host, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let words: Vec<[u8; 4]> = (0..host.len() / 8)
        .map(|at| {
            Some(
                u32::from_str_radix(host.get(at * 8..at * 8 + 8)?, 16)
                    .ok()?
                    .to_ne_bytes(),
            )
        })
        .collect::<Option<_>>()?;
    let ip = match words.as_slice() {
        [word] => IpAddr::from(Ipv4Addr::from(*word)),
        [_, _, _, _] => IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(words.concat()).ok()?)),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// The process with an open socket of that inode.
fn owner(inode: &str) -> Option<(i32, String)> {
    let wanted = format!("socket:[{inode}]");
    fs::read_dir("/proc").ok()?.flatten().find_map(|process| {
        let pid: i32 = process.file_name().to_str()?.parse().ok()?;
        let has_it = fs::read_dir(process.path().join("fd"))
            .ok()?
            .flatten()
            .any(|file| fs::read_link(file.path()).is_ok_and(|target| target.as_os_str() == wanted.as_str()));
        has_it.then(|| {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            (pid, name.trim().to_owned())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_names_address_and_process() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let taken = check_free(address).unwrap_err();
        let holder = taken.holder.as_ref().unwrap();
        let own_pid = i32::try_from(std::process::id()).unwrap();
        assert_eq!(holder.address, address);
        assert_eq!(holder.process.as_ref().unwrap().0, own_pid);
        assert!(
            taken
                .to_string()
                .starts_with(&format!("the cache cannot listen on {address}: "))
                && taken.to_string().ends_with(&format!("listens on {address}")),
            "{taken}"
        );
        let everywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
        assert_eq!(
            check_free(everywhere).unwrap_err().holder.unwrap().address,
            address
        );
        drop(listener);
        check_free(address).unwrap();
    }

    #[test]
    fn addresses_of_both_families_are_read() {
        if cfg!(target_endian = "little") {
            assert_eq!(address("0100007F:0C6C"), "127.0.0.1:3180".parse().ok());
            assert_eq!(
                address("00000000000000000000000001000000:0050"),
                "[::1]:80".parse().ok()
            );
        }
        assert_eq!(address("0100007F"), None);
        assert_eq!(address("01:0050"), None);
    }
}
