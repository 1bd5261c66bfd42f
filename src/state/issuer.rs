//! The keys of an issuer: fetched again and again, and when a token names one that is not known.

use std::{
    fmt::Display,
    fs,
    net::IpAddr,
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
    auth::{
        access_token::AccessTokens,
        issuer_keys::{IssuerKeys, KeyError},
    },
    config::TokenSettings,
    intervals::IssuerIntervals,
    issuer::{FetchError, IssuerClient, KeySource},
    limits::KeyFetchRateLimiter,
    tls::verify,
};

/// How long a client waits at most for a key that its token names.
const KEY_TIMEOUT: Duration = Duration::from_secs(5);

/// The keys of the issuer, as far as they have been fetched.
pub(super) struct IssuerState {
    schedule: Mutex<FetchSchedule>,
    /// Wakes the loop that fetches, when a token causes a fetch.
    wanted: Notify,
    /// Counts fetches that have ended, well or not.
    ended: watch::Sender<u64>,
}

/// When keys are fetched. Pure: `now` is an argument.
struct FetchSchedule {
    intervals: IssuerIntervals,
    /// When the fetch that runs began, or else the last one.
    began_at: Option<Instant>,
    /// When it ended; `None` while it runs.
    ended_at: Option<Instant>,
    /// When the keys in force were fetched.
    fetched_at: Option<Instant>,
    failures: u32,
    /// A token has caused a fetch that has not begun yet.
    is_wanted: bool,
    /// How often tokens may cause one.
    rate: KeyFetchRateLimiter,
}

/// What a token with an unknown key may wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Prospect {
    /// Its key cannot be had now.
    Nothing,
    /// For the fetch that runs, or is about to.
    Running,
    /// For one that it causes.
    Fetch,
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
        Self {
            intervals,
            began_at: None,
            ended_at: None,
            fetched_at: None,
            failures: 0,
            is_wanted: false,
            rate: KeyFetchRateLimiter::new(intervals.unknown_key),
        }
    }

    fn begin(&mut self, now: Instant) {
        (self.began_at, self.ended_at, self.is_wanted) = (Some(now), None, false);
    }

    fn end(&mut self, is_fetched: bool, now: Instant) {
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

    /// What a token with an unknown key that came at `asked_at` from `address` may wait for. Only a fetch that began later tells
    /// whether the issuer had its key, so an earlier one, also one that is not for tokens, never takes that fetch from it.
    fn prospect(&self, asked_at: Instant, address: IpAddr, now: Instant) -> Prospect {
        let is_running = self.began_at.is_some() && self.ended_at.is_none();
        if is_running || self.is_wanted {
            Prospect::Running
        } else if self.began_at >= Some(asked_at) || !self.rate.allows(address, now) {
            Prospect::Nothing
        } else {
            Prospect::Fetch
        }
    }

    /// The same; where it is a fetch, that is wanted from now on.
    fn claim(&mut self, asked_at: Instant, address: IpAddr, now: Instant) -> Prospect {
        let prospect = self.prospect(asked_at, address, now);
        if prospect == Prospect::Fetch {
            self.is_wanted = true;
            self.rate.count(address, now);
        }
        prospect
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

    /// Fetches keys for `tokens` when they are due, and when one is wanted, for as long as it is polled.
    async fn run<F>(&self, tokens: &AccessTokens, fetch: impl Fn() -> F)
    where
        F: Future<Output = Result<IssuerKeys, IssuerKeysError>>,
    {
        loop {
            let next = self.schedule().next(Instant::now());
            tokio::select! {
                () = sleep_until(next) => {}
                // One that was due has begun since, for the same token.
                () = self.wanted.notified() => if !self.schedule().is_wanted { continue },
            }
            self.schedule().begin(Instant::now());
            let fetched = fetch().await;
            let is_fetched = fetched.is_ok();
            match fetched {
                Ok(keys) => {
                    tracing::info!(keys = keys.count(), "issuer keys fetched");
                    tokens.set_issuer_keys(keys);
                }
                Err(error) => {
                    tracing::error!(%error, "issuer keys not fetched; the last ones stay in force");
                }
            }
            self.schedule().end(is_fetched, Instant::now());
            self.ended.send_modify(|ended| *ended += 1);
        }
    }

    /// Whether a key that `token` names is unknown, and can be waited for.
    fn needs_key(&self, tokens: &AccessTokens, token: &str, address: IpAddr) -> bool {
        let now = Instant::now();
        let prospect = self.schedule().prospect(now, address, now);
        prospect != Prospect::Nothing && tokens.needs_unknown_key(token)
    }

    /// Waits until a key that `token` names is known, or cannot be had now.
    async fn await_key(&self, tokens: &AccessTokens, token: &str, address: IpAddr) {
        let asked_at = Instant::now();
        let mut ended = self.ended.subscribe();
        let known = async {
            while tokens.needs_unknown_key(token)
                && self.is_promised(asked_at, address)
                && ended.changed().await.is_ok()
            {}
        };
        let _ = timeout(KEY_TIMEOUT, known).await;
    }

    /// Whether a fetch will end that may bring the key of a token that came at `asked_at` from `address`; where none runs, it
    /// begins.
    fn is_promised(&self, asked_at: Instant, address: IpAddr) -> bool {
        let prospect = self.schedule().claim(asked_at, address, Instant::now());
        if prospect == Prospect::Fetch {
            self.wanted.notify_one();
        }
        prospect != Prospect::Nothing
    }

    /// How old the keys are; `None` where none could be fetched yet.
    fn keys_age(&self) -> Option<Duration> {
        self.schedule().fetched_at.map(|at| at.elapsed())
    }
}

impl AppState {
    /// Fetches the keys of the issuer, for as long as it is polled.
    pub async fn run_issuer_keys(self) {
        let TokenSettings { key_source, allows_private, .. } = &self.config.tokens;
        let Some(source) = key_source.clone() else { return };
        let client = issuer_client(source, *allows_private, self.config.listen.tls.is_some()).await;
        self.issuer.run(&self.tokens, || fetch_keys(&client)).await;
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

    /// Whether a key that `token` names is unknown, and can be waited for. The token came from `address`.
    pub fn needs_issuer_key(&self, token: &str, address: IpAddr) -> bool {
        self.config.tokens.key_source.is_some()
            && self.issuer.needs_key(&self.tokens, token, address)
    }

    /// Waits until a key that `token` names is known, or cannot be had now. Call it where
    /// [`needs_issuer_key`](Self::needs_issuer_key) says so.
    pub async fn await_issuer_key(&self, token: &str, address: IpAddr) {
        self.issuer.await_key(&self.tokens, token, address).await;
    }

    /// How old the keys of the issuer are; `None` where there is none, or none could be fetched yet.
    pub fn issuer_keys_age(&self) -> Option<Duration> {
        self.issuer.keys_age()
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
mod tests;
