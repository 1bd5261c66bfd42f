//! Probes several STUN and TURN servers at once.

use std::time::Duration;

use futures_util::future::join_all;
use secrecy::SecretString;

use super::{
    attempt::{self, CredentialSource},
    outcome::{ProbeOutcome, ProbeReport},
};
use crate::{tls::verify, turn::IceServerUrl};

/// Probes STUN and TURN servers, all at once; the reports are in the order of `urls`.
///
/// Credentials are minted from `secret` and last up to `ttl`; the TURN servers' logs name the probes by `account`.
/// `names_own_certificate` as in [`verify::client_config`].
pub async fn probe_all(
    urls: &[&String],
    secret: &SecretString,
    ttl: Duration,
    account: &str,
    names_own_certificate: bool,
) -> Vec<ProbeReport> {
    let tls = verify::client_config(names_own_certificate).await;
    let probes = urls.iter().enumerate().map(async |(number, url)| {
        // An account for each URL: TURN servers count the allocations of each user.
        let account = format!("{account}-{number}");
        let credentials = CredentialSource { secret, ttl, account: &account };
        match IceServerUrl::parse(url) {
            Some(url) => attempt::probe(&url, credentials, &tls).await,
            None => ProbeReport::new(ProbeOutcome::NotProbed),
        }
    });
    join_all(probes).await
}
