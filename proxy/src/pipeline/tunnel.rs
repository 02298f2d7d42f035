//! CONNECT: bytes both ways, counted, neither read nor stored.

use std::{net::IpAddr, time::Duration};

use http::{Response, StatusCode, Version};
use hyper::upgrade;
use hyper_util::rt::TokioIo;
use kato_shared::chain::Chain;

use super::{Answer, Asked, Pipeline, idle::copy_until_idle};
use crate::{
    cache_status::{CacheStatus, Forward},
    deliver::Payload,
    metrics::{Outcome, Tunnelled},
    origin::Stream,
    respond,
};

impl Pipeline {
    /// Connects to `host`, answers 200, and then carries bytes between it and the client.
    pub(super) async fn tunnel(
        &self,
        request: Asked,
        (host, port): (String, u16),
        upstream: &str,
        client: IpAddr,
    ) -> Answer {
        let authority = format!("{host}:{port}");
        if self.0.settings.offline {
            let refusal = respond::problem(&respond::offline(&authority));
            return Answer::generated(refusal, Outcome::Failed, "offline");
        }
        self.0.metrics.upstream_request(upstream);
        let stream = match self.0.origin.tunnel(upstream, &host, port).await {
            Ok(stream) => stream,
            Err(error) => {
                self.0.metrics.upstream_failure(upstream, error.kind());
                tracing::info!(%client, authority, error = %Chain(&error), "no tunnel");
                let problem = respond::tunnel_failed(&authority, &error);
                return Answer::generated(respond::problem(&problem), Outcome::Failed, "no tunnel");
            }
        };
        let counted = self.0.metrics.tunnel(upstream);
        let patience = self.0.settings.limits.tunnel_idle_timeout.get();
        self.0
            .tasks
            .spawn(async move { carry(request, stream, (patience, counted), &authority).await });
        let mut response = Response::new(Payload::Empty);
        *response.status_mut() = StatusCode::OK;
        Answer {
            response,
            status: CacheStatus::forwarded(Forward::Method),
            outcome: Outcome::Bypass,
            received: Version::HTTP_11,
        }
    }
}

async fn carry(
    request: Asked,
    mut origin: Stream,
    (patience, counted): (Duration, Tunnelled),
    authority: &str,
) {
    let client = match upgrade::on(request).await {
        Ok(client) => client,
        Err(error) => {
            tracing::debug!(authority, error = %Chain(&error), "the client left before its tunnel opened");
            return;
        }
    };
    match copy_until_idle(TokioIo::new(client), &mut origin, patience, counted).await {
        Ok((up, down)) => {
            tracing::info!(authority, up, down, "tunnel closed; its bytes were not cached");
        }
        Err(error) => tracing::debug!(authority, %error, "tunnel broken"),
    }
}
