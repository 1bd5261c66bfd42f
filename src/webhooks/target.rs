//! The URL of a receiver, and the addresses to which events may be posted.

use std::{fmt, net::IpAddr};

use hyper::Uri;
use url::{Host, Url};

use crate::http_client::address::is_public;

/// One of `WEBHOOK_URLS`. Path and query may hold a secret, and are never displayed.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookTarget {
    /// The URL, without a fragment.
    pub url: Url,
    /// A name or an address.
    pub host: Host<String>,
    /// The port.
    pub port: u16,
    /// Whether events may go to addresses that are not public.
    pub allows_private: bool,
}

/// Why events cannot be posted to a URL. The text never contains the URL.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseTargetError {
    /// It cannot be parsed, has another scheme, or no host.
    #[error("is no https:// URL")]
    NotHttps,
    /// Anyone on the path could read which members meet.
    #[error("is not encrypted: http:// needs WEBHOOK_ALLOW_PRIVATE=true")]
    Unencrypted,
    /// Its host is an address that is not public.
    #[error("leads to {0}, which is no public address and needs WEBHOOK_ALLOW_PRIVATE=true")]
    Private(IpAddr),
    /// It has a username or a password.
    #[error("has a user name or a password: remove it, and verify the signature instead")]
    Userinfo,
}

impl WebhookTarget {
    /// Parses a URL.
    ///
    /// # Errors
    ///
    /// [`ParseTargetError`].
    pub fn parse(text: &str, allows_private: bool) -> Result<Self, ParseTargetError> {
        let mut url = Url::parse(text).map_err(|_| ParseTargetError::NotHttps)?;
        match url.scheme() {
            "https" => {}
            "http" if allows_private => {}
            "http" => return Err(ParseTargetError::Unencrypted),
            _ => return Err(ParseTargetError::NotHttps),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(ParseTargetError::Userinfo);
        }
        let host = url.host().ok_or(ParseTargetError::NotHttps)?.to_owned();
        let port = url.port_or_known_default().ok_or(ParseTargetError::NotHttps)?;
        url.set_fragment(None);
        if url.as_str().parse::<Uri>().is_err() {
            return Err(ParseTargetError::NotHttps); // longer than a request line may be
        }
        let target = Self { url, host, port, allows_private };
        match target.address() {
            Some(address) if !target.is_allowed(address) => Err(ParseTargetError::Private(address)),
            Some(_) | None => Ok(target),
        }
    }

    /// The address, if the host is one and no name.
    pub fn address(&self) -> Option<IpAddr> {
        match self.host {
            Host::Ipv4(address) => Some(address.into()),
            Host::Ipv6(address) => Some(address.into()),
            Host::Domain(_) => None,
        }
    }

    /// Whether events are posted over TLS.
    pub fn is_https(&self) -> bool {
        self.url.scheme() == "https"
    }

    /// Whether events may be posted to this address.
    pub fn is_allowed(&self, address: IpAddr) -> bool {
        self.allows_private || is_public(address)
    }
}

/// Host and port.
impl fmt::Display for WebhookTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl fmt::Debug for WebhookTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WebhookTarget({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_recognised_in_every_spelling() {
        for private in [
            "https://127.0.0.1/",
            "https://127.1/",
            "https://2130706433/",
            "https://0x7f.0.0.1/",
            "https://0177.0.0.1/",
            "https://[::1]/",
            "https://[::ffff:7f00:1]/",
            "https://169.254.169.254/latest/meta-data",
            "https://１２７.0.0.1/",
            "https://0/",
        ] {
            assert!(
                matches!(WebhookTarget::parse(private, false), Err(ParseTargetError::Private(_))),
                "{private}"
            );
            assert!(WebhookTarget::parse(private, true).is_ok(), "{private}");
        }
    }

    #[test]
    fn bad_urls_are_refused_and_no_part_of_a_secret_is_displayed() {
        let long = format!("https://hooks.example.com/{}", "x".repeat(70_000));
        for (url, allows_private, fault) in [
            (long.as_str(), false, ParseTargetError::NotHttps),
            ("", false, ParseTargetError::NotHttps),
            ("hooks.example.com/x", false, ParseTargetError::NotHttps),
            ("ftp://hooks.example.com/x", true, ParseTargetError::NotHttps),
            ("file:///etc/passwd", true, ParseTargetError::NotHttps),
            ("https://", false, ParseTargetError::NotHttps),
            ("http://hooks.example.com/x", false, ParseTargetError::Unencrypted),
            ("https://user:hunter2@hooks.example.com/", false, ParseTargetError::Userinfo),
        ] {
            assert_eq!(WebhookTarget::parse(url, allows_private), Err(fault), "{url}");
        }
        let strange = r"https://hooks.example.com/a b/é/{x}|^`[]?q={a}|^`'<é>\#part";
        assert!(WebhookTarget::parse(strange, false).is_ok());
        let target =
            WebhookTarget::parse("https://hooks.example.com/T0/hunter2?key=hunter2", false);
        let target = target.unwrap();
        assert_eq!(target.url.path(), "/T0/hunter2");
        assert_eq!(target.url.query(), Some("key=hunter2"));
        assert_eq!(format!("{target} {target:?}").matches("hooks.example.com:443").count(), 2);
        assert!(!format!("{target} {target:?}").contains("hunter2"));
    }
}
