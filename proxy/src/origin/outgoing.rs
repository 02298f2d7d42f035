//! How a request looks on the way to its origin: directly, through a parent proxy, over HTTP/1.1 or HTTP/2.

use std::sync::Arc;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, header,
    uri::{Authority, PathAndQuery, Scheme},
};
use http_body_util::Full;
use hyper::ext::on_informational;
use rustls::ClientConfig;

use super::{
    connect::{End, refusal},
    error::ExchangeError,
    parent::Parent,
};
use crate::interim::Interim;

/// The content of a request.
pub(super) type Content = Full<Bytes>;

/// How an origin is reached.
#[derive(Debug)]
pub(super) struct Way {
    pub(super) end: End,
    /// What requests name.
    pub(super) authority: Authority,
    /// The same, as the value of `Host`.
    pub(super) host: HeaderValue,
    /// For https targets.
    pub(super) tls: Option<Arc<ClientConfig>>,
    pub(super) parent: Option<Arc<Parent>>,
    /// TLS with the parent.
    pub(super) parent_tls: Arc<ClientConfig>,
}

/// One request, as it is sent over whatever connection.
#[derive(Debug)]
pub(super) struct Outgoing<'r> {
    pub(super) method: &'r Method,
    /// Whether it may be sent again though the origin may have got it: idempotent, and nothing stored can stand in.
    pub(super) is_repeatable: bool,
    pub(super) path: PathAndQuery,
    /// Without `Host`.
    pub(super) headers: &'r HeaderMap,
    /// The credentials in the upstream's URL.
    pub(super) authorization: Option<HeaderValue>,
    pub(super) body: &'r Bytes,
    pub(super) interim: Option<&'r Interim>,
}

impl Outgoing<'_> {
    /// Whether it is a GET without content, as nearly all are.
    pub(super) fn is_plain(&self) -> bool {
        *self.method == Method::GET && self.body.is_empty()
    }
}

impl Way {
    /// `outgoing` in the form that the connection wants: origin-form, or absolute-form for a parent (RFC 9112 §3.2).
    pub(super) fn request(&self, outgoing: &Outgoing<'_>, is_http2: bool) -> Request<Content> {
        let mut request = Request::new(Full::new(outgoing.body.clone()));
        *request.method_mut() = outgoing.method.clone();
        *request.headers_mut() = outgoing.headers.clone();
        let headers = request.headers_mut();
        if let Some(authorization) = &outgoing.authorization {
            headers
                .entry(header::AUTHORIZATION)
                .or_insert_with(|| authorization.clone());
        }
        if !is_http2 {
            headers.insert(header::HOST, self.host.clone());
        }
        let absolute = self.parent.as_ref().filter(|_| self.tls.is_none());
        if let Some(authorization) = absolute.and_then(|parent| parent.authorization.as_ref()) {
            headers.insert(header::PROXY_AUTHORIZATION, authorization.clone());
        }
        *request.uri_mut() = self.target(outgoing.path.clone(), is_http2 || absolute.is_some());
        if let Some(interim) = outgoing.interim.cloned() {
            on_informational(&mut request, move |response| {
                interim.send(response.status(), response.headers());
            });
        }
        request
    }

    fn target(&self, path: PathAndQuery, is_absolute: bool) -> Uri {
        if !is_absolute {
            return Uri::from(path);
        }
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(if self.tls.is_some() {
            Scheme::HTTPS
        } else {
            Scheme::HTTP
        });
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(path.clone());
        // All three parts are there, so they fit together.
        Uri::from_parts(parts).unwrap_or_else(|_incomplete| Uri::from(path))
    }

    /// The same as the bytes of a head for HTTP/1.1 (RFC 9112 §3), `outgoing` being without content.
    pub(super) fn head(&self, outgoing: &Outgoing<'_>) -> Vec<u8> {
        let absolute = self.parent.as_ref().filter(|_| self.tls.is_none());
        let for_parent = absolute.and_then(|parent| parent.authorization.as_ref());
        let authorization = outgoing.authorization.as_ref();
        let authorization = authorization.filter(|_| !outgoing.headers.contains_key(header::AUTHORIZATION));
        let mut head = Vec::with_capacity(512);
        let mut write = |parts: &[&[u8]]| parts.iter().for_each(|part| head.extend_from_slice(part));
        write(&[outgoing.method.as_str().as_bytes(), b" "]);
        if absolute.is_some() {
            write(&[b"http://", self.authority.as_str().as_bytes()]);
        }
        write(&[outgoing.path.as_str().as_bytes(), b" HTTP/1.1\r\n"]);
        let ours = [
            (&header::HOST, Some(&self.host)),
            (&header::AUTHORIZATION, authorization),
            (&header::PROXY_AUTHORIZATION, for_parent),
        ];
        let ours = ours.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let is_ours = |name: &HeaderName| {
            *name == header::HOST || (for_parent.is_some() && *name == header::PROXY_AUTHORIZATION)
        };
        let theirs = outgoing.headers.iter().filter(|(name, _)| !is_ours(name));
        for (name, value) in ours.chain(theirs) {
            write(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"]);
        }
        write(&[b"\r\n"]);
        head
    }

    /// A 407 in answer to an absolute-form request is the parent's, and meant for us.
    pub(super) fn check<B>(&self, response: &Response<B>) -> Result<(), ExchangeError> {
        let absolute = self.parent.as_ref().filter(|_| self.tls.is_none());
        match absolute {
            Some(parent) if response.status() == http::StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
                Err(refusal(parent, None, response.status(), response.headers()).into())
            }
            _ => Ok(()),
        }
    }
}
