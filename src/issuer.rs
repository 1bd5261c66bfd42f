//! Fetches the public keys of an identity provider: from its JWK set (RFC 7517 section 5), which OpenID Connect Discovery
//! 1.0 may find. No redirect is followed; size and time are bounded.

use std::{fmt, net::IpAddr, time::Duration};

use reqwest::{Client, StatusCode, header::ACCEPT};
use rustls::ClientConfig;
use serde::Deserialize;
use tokio::time::timeout;
use url::{Host, Url};

use crate::http_client::{direct, resolver::CheckedResolver, root_cause};

/// The largest document that is read, in bytes: a set of 50 keys with certificates has 200 KiB.
const MAX_DOCUMENT_BYTES: usize = 512 * 1024;

/// The longest that one document may take.
const DOCUMENT_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the keys of an issuer are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// The URL of a JWK set.
    JwkSet(Url),
    /// The `iss` of the tokens: its discovery document names the URL.
    Discovery {
        /// The issuer, as `iss` has it.
        issuer: String,
        /// The URL of its discovery document.
        document: Url,
    },
}

/// Why keys could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// A URL is not one that may be asked.
    #[error("{url}: {problem}")]
    Url {
        /// The URL.
        url: String,
        /// What is wrong with it.
        problem: UrlProblem,
    },
    /// There was no answer.
    #[error("{url}: {cause}")]
    Http {
        /// The URL.
        url: Url,
        /// The cause, in the words of the system or of the HTTP client.
        cause: String,
    },
    /// The answer is another one than 200. Redirects are not followed.
    #[error("{url}: it answered {status}")]
    Status {
        /// The URL.
        url: Url,
        /// The status.
        status: StatusCode,
    },
    /// The answer did not end in time.
    #[error("{0}: no answer within 10 s")]
    Timeout(Url),
    /// The answer is too long.
    #[error("{0}: its answer has more than 512 KiB")]
    TooLong(Url),
    /// The discovery document is none.
    #[error("{0}: its answer is no discovery document with `issuer` and `jwks_uri`")]
    NoDiscovery(Url),
    /// The discovery document is that of another issuer.
    #[error("{url}: its `issuer` is \"{found}\", JWT_ISSUER is another one")]
    OtherIssuer {
        /// The URL.
        url: Url,
        /// The issuer that it names.
        found: String,
    },
}

/// Why a URL may not be asked for keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UrlProblem {
    /// It is no `https://` URL with a host and without a password.
    NotHttps,
    /// It is not encrypted.
    Unencrypted,
    /// It leads to a private address.
    Private(IpAddr),
}

impl fmt::Display for UrlProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotHttps => f.write_str("is no https:// URL without a password"),
            Self::Unencrypted => {
                f.write_str("is not encrypted: http:// needs JWT_JWKS_ALLOW_PRIVATE=true")
            }
            Self::Private(address) => write!(
                f,
                "leads to {address}, which is no public address and needs JWT_JWKS_ALLOW_PRIVATE=true"
            ),
        }
    }
}

impl KeySource {
    /// The JWK set at a URL.
    ///
    /// # Errors
    ///
    /// [`UrlProblem`].
    pub fn jwk_set(url: &str, allows_private: bool) -> Result<Self, UrlProblem> {
        parse_url(url, allows_private).map(Self::JwkSet)
    }

    /// The JWK set that the discovery document of `issuer` names.
    ///
    /// # Errors
    ///
    /// [`UrlProblem`].
    pub fn discovery(issuer: &str, allows_private: bool) -> Result<Self, UrlProblem> {
        // OpenID Connect Discovery 1.0 section 4.1: a slash at the end is removed first.
        let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let document = parse_url(&url, allows_private)?;
        Ok(Self::Discovery { issuer: issuer.to_owned(), document })
    }
}

fn parse_url(text: &str, allows_private: bool) -> Result<Url, UrlProblem> {
    let url = Url::parse(text).map_err(|_| UrlProblem::NotHttps)?;
    match url.scheme() {
        "https" => {}
        "http" if allows_private => {}
        "http" => return Err(UrlProblem::Unencrypted),
        _ => return Err(UrlProblem::NotHttps),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(UrlProblem::NotHttps);
    }
    let address = match url.host().ok_or(UrlProblem::NotHttps)? {
        Host::Ipv4(address) => Some(IpAddr::from(address)),
        Host::Ipv6(address) => Some(IpAddr::from(address)),
        // The resolver checks names.
        Host::Domain(_) => None,
    };
    match address.filter(|it| !CheckedResolver { allows_private }.is_allowed(*it)) {
        Some(address) => Err(UrlProblem::Private(address)),
        None => Ok(url),
    }
}

/// Fetches the keys of one issuer.
pub struct IssuerClient {
    source: KeySource,
    allows_private: bool,
    http: Client,
}

#[derive(Deserialize)]
struct DiscoveryDocument {
    issuer: String,
    jwks_uri: String,
}

impl IssuerClient {
    /// A client for `source` with these root certificates; `allows_private` as it was for the source.
    pub fn new(source: KeySource, allows_private: bool, tls: ClientConfig) -> Self {
        let http = direct()
            .user_agent(concat!("signaling-server/", env!("CARGO_PKG_VERSION")))
            .tls_backend_preconfigured(tls)
            .dns_resolver(CheckedResolver { allows_private })
            .connect_timeout(DOCUMENT_TIMEOUT / 2)
            .http1_only()
            .referer(false)
            .pool_max_idle_per_host(0);
        #[expect(clippy::expect_used, reason = "see the message")]
        let http = http.build().expect("the settings above are constants");
        Self { source, allows_private, http }
    }

    /// The JWK set, as it was sent.
    ///
    /// # Errors
    ///
    /// [`FetchError`].
    pub async fn fetch(&self) -> Result<Vec<u8>, FetchError> {
        match &self.source {
            KeySource::JwkSet(url) => self.get(url).await,
            KeySource::Discovery { issuer, document: url } => {
                let document: DiscoveryDocument = serde_json::from_slice(&self.get(url).await?)
                    .map_err(|_| FetchError::NoDiscovery(url.clone()))?;
                if document.issuer != *issuer {
                    return Err(FetchError::OtherIssuer {
                        url: url.clone(),
                        found: document.issuer.chars().take(200).collect(),
                    });
                }
                let keys = parse_url(&document.jwks_uri, self.allows_private);
                let keys = keys.map_err(|problem| FetchError::Url {
                    url: document.jwks_uri.chars().take(200).collect(),
                    problem,
                })?;
                self.get(&keys).await
            }
        }
    }

    async fn get(&self, url: &Url) -> Result<Vec<u8>, FetchError> {
        let document = timeout(DOCUMENT_TIMEOUT, self.read_document(url)).await;
        document.unwrap_or_else(|_elapsed| Err(FetchError::Timeout(url.clone())))
    }

    async fn read_document(&self, url: &Url) -> Result<Vec<u8>, FetchError> {
        let fault = |error: reqwest::Error| FetchError::Http {
            url: url.clone(),
            cause: root_cause(&error.without_url()),
        };
        let request = self.http.get(url.clone()).header(ACCEPT, "application/json");
        let mut response = request.send().await.map_err(fault)?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status { url: url.clone(), status: response.status() });
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(fault)? {
            if body.len() + chunk.len() > MAX_DOCUMENT_BYTES {
                return Err(FetchError::TooLong(url.clone()));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_https_urls_are_asked_unless_private_ones_are_allowed() {
        for (url, problem) in [
            ("http://id.example.com/keys", UrlProblem::Unencrypted),
            ("ftp://id.example.com/keys", UrlProblem::NotHttps),
            ("https://user:secret@id.example.com/", UrlProblem::NotHttps),
            ("id.example.com", UrlProblem::NotHttps),
            ("https://169.254.169.254/", UrlProblem::Private([169, 254, 169, 254].into())),
        ] {
            assert_eq!(KeySource::jwk_set(url, false), Err(problem), "{url}");
        }
        assert!(KeySource::jwk_set("http://127.0.0.1:9/keys", true).is_ok());
    }

    #[test]
    fn the_discovery_document_is_below_the_issuer() {
        for issuer in ["https://id.example.com/realms/a", "https://id.example.com/realms/a/"] {
            let Ok(KeySource::Discovery { document, .. }) = KeySource::discovery(issuer, false)
            else {
                panic!("{issuer}")
            };
            assert_eq!(
                document.as_str(),
                "https://id.example.com/realms/a/.well-known/openid-configuration"
            );
        }
    }
}
