//! The far end of a client's tunnel (CONNECT).

use url::Url;

use super::{
    Origin, OriginError,
    connect::{End, Stream},
    error::ExchangeError,
};

impl Origin {
    /// A tunnel for a client to `host` at `port`, guarded like requests, through the parent proxy where there is one.
    ///
    /// # Errors
    /// When there is no connection, as for a request.
    pub async fn tunnel(&self, upstream: &str, host: &str, port: u16) -> Result<Stream, OriginError> {
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
                    return Err(OriginError::Guarded { url: end.to_string() });
                }
                connector.tunnel(&end, parent, &profile.tls.parent).await
            }
        };
        made.map_err(|error| OriginError::Request {
            url: end.to_string(),
            source: ExchangeError::Connect(error),
        })
    }
}
