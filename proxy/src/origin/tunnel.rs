//! The far end of a client's tunnel (CONNECT).

use std::io;

use url::Url;

use super::{
    ConnectError, Origin, OriginError,
    connect::{End, Stream},
};

impl Origin {
    /// A tunnel for a client to `host` at `port`, guarded like requests, through the parent proxy where there is one.
    ///
    /// # Errors
    /// When there is no connection; `PermissionDenied` for guarded addresses, `TimedOut` for slow ones.
    pub async fn tunnel(&self, upstream: &str, host: &str, port: u16) -> io::Result<Stream> {
        let profile = self.profile(upstream);
        let connector = self.connector();
        let end = End {
            host: host.to_owned(),
            port,
        };
        let made = match profile.parents.parent(true, host, port) {
            None => connector.direct(&end, None).await.map(|(stream, _)| stream),
            Some(parent) => {
                let judged = Url::parse(&format!("https://{end}/"));
                if !judged.is_ok_and(|url| connector.guard.allows(&url)) {
                    let source = OriginError::Guarded { url: end.to_string() };
                    return Err(io::Error::new(io::ErrorKind::PermissionDenied, source));
                }
                connector.tunnel(&end, parent, &profile.tls.parent).await
            }
        };
        made.map_err(ConnectError::into_io)
    }
}
