//! The health of the TURN servers, as the last probe of each has found it.

use std::{
    collections::BTreeMap,
    sync::{PoisonError, RwLock},
    time::Duration,
};

use secrecy::SecretString;

use super::{
    batch::{Prober, probe_all},
    outcome::{ProbeOutcome, ProbeReport},
};
use crate::clock::unix_now;

/// What the last probe of a TURN server has found.
#[derive(Clone, Debug)]
pub struct ProbeResult {
    /// As in `TURNSERVER_URLS`.
    pub url: String,
    /// How the probe ended.
    pub outcome: ProbeOutcome,
    /// How long the server took to answer.
    pub latency: Option<Duration>,
    /// When the probe ended, in whole seconds since the Unix epoch.
    pub at: u64,
}

/// The last probe's result for each TURN server, by URL.
#[derive(Default)]
pub struct TurnHealth(RwLock<BTreeMap<String, ProbeResult>>);

impl TurnHealth {
    /// The results by URL. Empty before the first probe.
    pub fn results(&self) -> Vec<ProbeResult> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The same URLs in the same order, except that servers which do not work come last.
    pub fn healthy_first(&self, urls: &[String]) -> Vec<String> {
        let results = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut urls = urls.to_vec();
        urls.sort_by_key(|url| results.get(url).is_some_and(|it| !it.outcome.is_up()));
        urls
    }

    /// Probes all of `urls` at once, with credentials like those of clients, and logs what has changed. Results of other
    /// URLs are removed. `names_own_certificate` as in [`probe_all`].
    pub async fn probe(
        &self,
        urls: &[String],
        secret: &SecretString,
        ttl: Duration,
        names_own_certificate: bool,
    ) {
        let urls: Vec<_> = urls.iter().collect();
        let reports = if urls.is_empty() {
            Vec::new()
        } else {
            probe_all(&urls, secret, ttl, Prober::Server, names_own_certificate).await
        };
        let at = unix_now();
        let results = urls.into_iter().zip(reports).map(|(url, report)| {
            let ProbeReport { outcome, latency, .. } = report;
            (url.clone(), ProbeResult { url: url.clone(), outcome, latency, at })
        });
        let results: BTreeMap<_, _> = results.collect();
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *known, results.clone());
        drop(known);
        for (url, ProbeResult { outcome, latency, .. }) in results {
            if before.get(&url).is_some_and(|before| before.outcome == outcome) {
                continue;
            }
            if outcome.is_up() {
                tracing::info!(url, verdict = %outcome, ?latency, "TURN server works");
            } else {
                tracing::warn!(url, verdict = %outcome, "TURN server does not work; clients get it last");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health_of(outcomes: &[(&str, ProbeOutcome)]) -> TurnHealth {
        let results = outcomes.iter().map(|(url, outcome)| {
            let (url, outcome) = ((*url).to_owned(), outcome.clone());
            (url.clone(), ProbeResult { url, outcome, latency: None, at: 0 })
        });
        TurnHealth(RwLock::new(results.collect()))
    }

    #[test]
    fn servers_that_do_not_work_come_last_and_the_others_keep_their_order() {
        let urls = ["turn:d", "turn:c", "turn:b", "turn:a", "turn:e"].map(str::to_owned);
        let health = health_of(&[
            ("turn:d", ProbeOutcome::PortClosed),
            ("turn:c", ProbeOutcome::Up),
            ("turn:b", ProbeOutcome::WrongSecret),
            ("turn:a", ProbeOutcome::ClockAhead),
        ]);

        assert_eq!(health.healthy_first(&urls), ["turn:c", "turn:a", "turn:e", "turn:d", "turn:b"]);
        assert_eq!(TurnHealth::default().healthy_first(&urls), urls);
        let none = urls.each_ref().map(|url| (url.as_str(), ProbeOutcome::Timeout));
        assert_eq!(health_of(&none).healthy_first(&urls), urls, "no server is left out");
    }
}
