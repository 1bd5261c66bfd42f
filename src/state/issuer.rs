//! The keys of an issuer: fetched again and again, and when a token names one that is not known.

use std::{
    fmt::Display,
    fs,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until, timeout},
};

use super::{AppState, AppStateInner};
use crate::{
    auth::issuer_keys::{IssuerKeys, KeyError},
    config::TokenSettings,
    intervals::IssuerIntervals,
    issuer::{FetchError, IssuerClient, KeySource},
    tls::verify,
};

/// How long a client waits at most for a key that its token names.
const KEY_TIMEOUT: Duration = Duration::from_secs(5);

/// The keys of the issuer, as far as they have been fetched.
pub(super) struct IssuerState {
    /// The pause after the last fetch.
    schedule: Mutex<FetchSchedule>,
    /// Asks for a fetch.
    wanted: Notify,
    /// Counts fetches that have ended, well or not.
    ended: watch::Sender<u64>,
}

/// When keys are fetched. Pure: `now` is an argument.
#[derive(Clone, Copy, Debug)]
struct FetchSchedule {
    intervals: IssuerIntervals,
    /// When the last fetch ended.
    ended_at: Option<Instant>,
    /// When the keys in force were fetched.
    fetched_at: Option<Instant>,
    failures: u32,
}

/// Why there are no new keys.
#[derive(Debug, thiserror::Error)]
pub enum IssuerKeysError {
    /// They cannot be fetched.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// They cannot be read.
    #[error("the JWK set of the issuer: {0}")]
    Keys(#[from] KeyError),
}

impl FetchSchedule {
    fn new(intervals: IssuerIntervals) -> Self {
        Self { intervals, ended_at: None, fetched_at: None, failures: 0 }
    }

    fn record(&mut self, is_fetched: bool, now: Instant) {
        self.ended_at = Some(now);
        if is_fetched {
            (self.fetched_at, self.failures) = (Some(now), 0);
        } else {
            self.failures = self.failures.saturating_add(1);
        }
    }

    /// When to fetch next: after the usual interval, or after a failure soon, and later each time.
    fn next(&self, now: Instant) -> Instant {
        let Some(ended_at) = self.ended_at else { return now };
        let IssuerIntervals { refresh, retry, .. } = self.intervals;
        let pause = match self.failures {
            0 => refresh,
            failures => retry.saturating_mul(1 << (failures - 1).min(10)).min(refresh),
        };
        ended_at + pause
    }

    /// Whether a token with an unknown key may cause a fetch now.
    fn may_fetch_for_token(&self, now: Instant) -> bool {
        self.ended_at.is_none_or(|ended_at| now >= ended_at + self.intervals.unknown_key)
    }
}

impl IssuerState {
    pub(super) fn new(intervals: IssuerIntervals) -> Self {
        Self {
            schedule: Mutex::new(FetchSchedule::new(intervals)),
            wanted: Notify::new(),
            ended: watch::Sender::new(0),
        }
    }

    fn schedule(&self) -> MutexGuard<'_, FetchSchedule> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AppState {
    /// Fetches the keys of the issuer, for as long as it is polled.
    pub async fn run_issuer_keys(self) {
        let TokenSettings { key_source, allows_private, .. } = &self.config.tokens;
        let Some(source) = key_source.clone() else { return };
        let client = issuer_client(source, *allows_private, self.config.listen.tls.is_some()).await;
        loop {
            let next = self.issuer.schedule().next(Instant::now());
            tokio::select! {
                () = sleep_until(next) => {}
                () = self.issuer.wanted.notified() => {
                    if !self.issuer.schedule().may_fetch_for_token(Instant::now()) {
                        continue;
                    }
                }
            }
            let fetched = fetch_keys(&client).await;
            self.issuer.schedule().record(fetched.is_ok(), Instant::now());
            match fetched {
                Ok(keys) => {
                    tracing::info!(keys = keys.count(), "issuer keys fetched");
                    self.tokens.set_issuer_keys(keys);
                }
                Err(error) => {
                    tracing::error!(%error, "issuer keys not fetched; the last ones stay in force");
                }
            }
            self.issuer.ended.send_modify(|ended| *ended += 1);
        }
    }
}

impl AppStateInner {
    /// Loads the keys of `JWT_PUBLIC_KEY_FILE`, where it is set.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or has no key.
    pub fn load_issuer_keys(&self) -> Result<(), String> {
        let Some(path) = &self.config.tokens.public_key_file else { return Ok(()) };
        self.tokens.set_issuer_keys(read_key_file(path)?);
        Ok(())
    }

    /// Whether a key that `token` names is unknown, and may be fetched now.
    pub fn needs_issuer_key(&self, token: &str) -> bool {
        self.config.tokens.key_source.is_some()
            && self.issuer.schedule().may_fetch_for_token(Instant::now())
            && self.tokens.needs_unknown_key(token)
    }

    /// Waits until the keys of the issuer have been fetched again, or could not be. Call it where
    /// [`needs_issuer_key`](Self::needs_issuer_key) says so.
    pub async fn fetch_issuer_key(&self) {
        let mut ended = self.issuer.ended.subscribe();
        self.issuer.wanted.notify_one();
        let _ = timeout(KEY_TIMEOUT, ended.changed()).await;
    }

    /// How old the keys of the issuer are; `None` where there is none, or none could be fetched yet.
    pub fn issuer_keys_age(&self) -> Option<Duration> {
        self.issuer.schedule().fetched_at.map(|at| at.elapsed())
    }
}

/// The keys in a file.
///
/// # Errors
///
/// It cannot be read, or has no key; the text names the setting.
pub fn read_key_file(path: &Path) -> Result<IssuerKeys, String> {
    let fault = |cause: &dyn Display| format!("JWT_PUBLIC_KEY_FILE: {}: {cause}", path.display());
    let bytes = fs::read(path).map_err(|error| fault(&error))?;
    IssuerKeys::parse(&bytes).map_err(|error| fault(&error))
}

/// A client for the keys of an issuer; `names_own_certificate` as in [`verify::system_roots`].
pub async fn issuer_client(
    source: KeySource,
    allows_private: bool,
    names_own_certificate: bool,
) -> IssuerClient {
    let tls = verify::client_config(names_own_certificate).await;
    IssuerClient::new(source, allows_private, (*tls).clone())
}

/// The keys of the issuer now.
///
/// # Errors
///
/// [`IssuerKeysError`].
pub async fn fetch_keys(client: &IssuerClient) -> Result<IssuerKeys, IssuerKeysError> {
    Ok(IssuerKeys::from_jwk_set(&client.fetch().await?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn keys_are_fetched_regularly_and_soon_after_a_failure() {
        let start = Instant::now();
        let mut schedule = FetchSchedule::new(IssuerIntervals::default());
        assert_eq!(schedule.next(start), start);

        schedule.record(true, start);
        assert_eq!(schedule.next(start), start + 600 * SECOND);
        let mut pauses = Vec::new();
        for _ in 0..9 {
            schedule.record(false, start);
            pauses.push((schedule.next(start) - start).as_secs());
        }
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 320, 600, 600]);
        assert_eq!(schedule.fetched_at, Some(start), "the last keys stay in force");
        schedule.record(true, start + SECOND);
        assert_eq!(schedule.next(start), start + 601 * SECOND);
    }

    #[test]
    fn unknown_keys_cause_a_fetch_once_a_minute() {
        let start = Instant::now();
        let mut schedule = FetchSchedule::new(IssuerIntervals::default());

        assert!(schedule.may_fetch_for_token(start));
        for is_fetched in [true, false] {
            schedule.record(is_fetched, start);
            assert!(!schedule.may_fetch_for_token(start + 59 * SECOND));
            assert!(schedule.may_fetch_for_token(start + 60 * SECOND));
        }
    }
}
