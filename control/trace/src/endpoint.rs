//! Where a collector takes spans.

use std::{fmt, str::FromStr};

use hyper::Uri;
use thiserror::Error;

/// The path when none is given (OTLP/HTTP's default).
const PATH: &str = "/v1/traces";
/// The port when none is given.
const PORT: u16 = 4318;

/// The URL of a collector that speaks OTLP over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) path: String,
}

/// It is no such URL.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EndpointError {
    /// Another protocol.
    #[error(
        "{0:?} is not of http; give http://HOST:4318 of a collector on this node or in the mesh, which may pass on by TLS"
    )]
    Scheme(String),
    /// No URL at all.
    #[error("{0:?} is no URL; give one such as http://127.0.0.1:4318")]
    Url(String),
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let wrong = || EndpointError::Url(text.to_owned());
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        match uri.scheme_str() {
            Some("http") => {}
            Some(_) => return Err(EndpointError::Scheme(text.to_owned())),
            None => return Err(wrong()),
        }
        let authority = uri.authority().ok_or_else(wrong)?;
        // A name and password would be sent in clear, and are nothing that collectors ask for.
        if authority.as_str().contains('@') || uri.query().is_some() || authority.host().is_empty() {
            return Err(wrong());
        }
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") => PORT,
            _ => authority.port_u16().ok_or_else(wrong)?,
        };
        let path = match uri.path() {
            "" | "/" => PATH.to_owned(),
            path => path.to_owned(),
        };
        Ok(Self { host: authority.host().to_owned(), port, path })
    }
}

impl Endpoint {
    /// Without the brackets of an IPv6 address.
    pub(crate) fn dial(&self) -> (&str, u16) {
        (self.host.trim_start_matches('[').trim_end_matches(']'), self.port)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}:{}{}", self.host, self.port, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_and_path_have_defaults() {
        for (text, whole) in [
            ("http://127.0.0.1", "http://127.0.0.1:4318/v1/traces"),
            ("http://[fd00::1]:80/", "http://[fd00::1]:80/v1/traces"),
            ("http://collector:4000/otlp/v1/traces", "http://collector:4000/otlp/v1/traces"),
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!(endpoint.to_string(), whole);
            assert_eq!(whole.parse::<Endpoint>(), Ok(endpoint));
        }
        let six: Endpoint = "http://[fd00::1]".parse().unwrap();
        assert_eq!(six.dial(), ("fd00::1", 4318));
    }

    #[test]
    fn others_are_refused_with_what_to_do() {
        let refused = |text: &str| text.parse::<Endpoint>().unwrap_err().to_string();
        assert!(refused("https://collector").contains("http://HOST:4318"));
        assert!(refused("grpc://collector").contains("not of http"));
        for text in
            ["", "collector:4318", "http://", "http://a:b@c", "http://c/?x=1", "/v1/traces", "http://c:x"]
        {
            assert!(
                refused(text).contains("127.0.0.1:4318") || refused(text).contains("HOST:4318"),
                "{text}"
            );
        }
    }
}
