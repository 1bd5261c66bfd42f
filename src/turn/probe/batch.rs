//! Probes several STUN and TURN servers at once.

use std::time::Duration;

use futures_util::future::join_all;
use secrecy::SecretString;

use super::{
    attempt::{self, CredentialSource},
    outcome::{ProbeOutcome, ProbeReport},
};
use crate::{tls::verify, turn::IceServerUrl};

/// Who probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prober {
    /// `doctor`, once: with a name that has every character that a TURN server may refuse, and with expired credentials.
    Doctor,
    /// The running server, again and again.
    Server,
}

/// What [`mint`](crate::turn::mint) has to encode, and more than ASCII.
const UNUSUAL_CHARACTERS: &str = " ö'\"\\";

/// Probes STUN and TURN servers, all at once; the reports are in the order of `urls`.
///
/// Credentials are minted from `secret` and last up to `ttl`; the TURN servers' logs name the probes `doctor-0`, … or
/// `probe-0`, ….
/// `names_own_certificate` as in [`verify::client_config`].
pub async fn probe_all(
    urls: &[&String],
    secret: &SecretString,
    ttl: Duration,
    prober: Prober,
    names_own_certificate: bool,
) -> Vec<ProbeReport> {
    let tls = verify::client_config(names_own_certificate).await;
    let probes = urls.iter().enumerate().map(async |(number, url)| {
        // An account for each URL: TURN servers count the allocations of each user.
        let account = match prober {
            Prober::Doctor => format!("doctor-{number}{UNUSUAL_CHARACTERS}"),
            Prober::Server => format!("probe-{number}"),
        };
        let tries_expired = prober == Prober::Doctor;
        let credentials = CredentialSource { secret, ttl, account: &account, tries_expired };
        match IceServerUrl::parse(url) {
            Some(url) => attempt::probe(&url, credentials, &tls).await,
            None => ProbeReport::new(ProbeOutcome::UnknownHost("the URL is malformed".to_owned())),
        }
    });
    join_all(probes).await
}
