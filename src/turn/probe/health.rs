//! The relays that clients are sent to: whether they relay, as a client would find them.

use std::{
    collections::BTreeMap,
    sync::{PoisonError, RwLock},
    time::Duration,
};

use futures_util::future::join_all;
use secrecy::SecretString;

use super::attempt::{self, Issued, Report, Verdict};
use crate::{
    clock::unix_now,
    tls::verify,
    turn::url::{RelayUrl, Transport},
};

/// What the last trial of a relay has shown.
#[derive(Clone, Debug)]
pub struct Seen {
    /// As in `TURNSERVER_URLS`.
    pub url: String,
    /// What became of it.
    pub verdict: Verdict,
    /// How long it took to answer.
    pub latency: Option<Duration>,
    /// When that was, in whole seconds since the Unix epoch.
    pub at: u64,
}

/// What is known of each relay.
#[derive(Default)]
pub struct Relays(RwLock<BTreeMap<String, Seen>>);

impl Relays {
    /// What is known, by URL; nothing before the first trial.
    pub fn seen(&self) -> Vec<Seen> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The same URLs, but those that do not relay come last.
    pub fn in_order(&self, urls: &[String]) -> Vec<String> {
        let seen = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut urls = urls.to_vec();
        urls.sort_by_key(|url| seen.get(url).is_some_and(|it| !it.verdict.is_up()));
        urls
    }

    /// Tries all of `urls` at once, with credentials as they are issued, and says in the log what has changed. What
    /// is known of others is forgotten. `names_own_certificate` as in [`verify::client_config`].
    pub async fn look(
        &self,
        urls: &[String],
        secret: &SecretString,
        ttl: Duration,
        names_own_certificate: bool,
    ) {
        let is_tried =
            |url: &&String| RelayUrl::read(url).is_some_and(|url| url.transport != Transport::Dtls);
        let urls: Vec<_> = urls.iter().filter(is_tried).collect();
        let reports = if urls.is_empty() {
            Vec::new()
        } else {
            reports(&urls, secret, ttl, "probe", names_own_certificate).await
        };
        let at = unix_now();
        let known = urls.into_iter().zip(reports).map(|(url, report)| {
            let Report { verdict, latency, .. } = report;
            (url.clone(), Seen { url: url.clone(), verdict, latency, at })
        });
        let known: BTreeMap<_, _> = known.collect();
        let mut seen = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *seen, known.clone());
        drop(seen);
        for (url, Seen { verdict, latency, .. }) in known {
            if before.get(&url).is_some_and(|before| before.verdict == verdict) {
                continue;
            }
            if verdict.is_up() {
                tracing::info!(url, %verdict, ?latency, "a TURN server relays");
            } else {
                tracing::warn!(url, %verdict, "a TURN server does not relay: it is handed out last");
            }
        }
    }
}

/// Tries STUN and TURN servers, all at once; the reports come in the order of `urls`. `account` is what the log of a
/// relay knows us by. `names_own_certificate` as in [`verify::client_config`].
pub async fn reports(
    urls: &[&String],
    secret: &SecretString,
    ttl: Duration,
    account: &str,
    names_own_certificate: bool,
) -> Vec<Report> {
    let tls = verify::client_config(names_own_certificate).await;
    let trials = urls.iter().enumerate().map(async |(number, url)| {
        // A name for each: relays count what each user holds.
        let account = format!("{account}-{number}");
        let not_tried =
            Report { verdict: Verdict::NotTried, latency: None, certificate_ends: None };
        match RelayUrl::read(url) {
            Some(url) => {
                attempt::probe(&url, Issued { secret, ttl, account: &account }, &tls).await
            }
            None => not_tried,
        }
    });
    join_all(trials).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(verdicts: &[(&str, Verdict)]) -> Relays {
        let seen = verdicts.iter().map(|(url, verdict)| {
            let (url, verdict) = ((*url).to_owned(), verdict.clone());
            (url.clone(), Seen { url, verdict, latency: None, at: 0 })
        });
        Relays(RwLock::new(seen.collect()))
    }

    #[test]
    fn who_does_not_relay_comes_last_and_the_others_stay_as_they_were() {
        let urls = ["turn:d", "turn:c", "turn:b", "turn:a", "turn:e"].map(str::to_owned);
        let relays = known(&[
            ("turn:d", Verdict::Closed),
            ("turn:c", Verdict::Up),
            ("turn:b", Verdict::WrongSecret),
            ("turn:a", Verdict::ClockAhead),
        ]);

        assert_eq!(relays.in_order(&urls), ["turn:c", "turn:a", "turn:e", "turn:d", "turn:b"]);
        assert_eq!(Relays::default().in_order(&urls), urls);
        let none = urls.each_ref().map(|url| (url.as_str(), Verdict::Silent));
        assert_eq!(known(&none).in_order(&urls), urls, "never none");
    }
}
