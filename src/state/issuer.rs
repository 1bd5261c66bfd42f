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
    auth::{
        access_token::AccessTokens,
        issuer_keys::{IssuerKeys, KeyError},
    },
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

    /// Fetches keys for `tokens` when they are due, and when one is wanted, for as long as it is polled.
    async fn run<F>(&self, tokens: &AccessTokens, fetch: impl Fn() -> F)
    where
        F: Future<Output = Result<IssuerKeys, IssuerKeysError>>,
    {
        loop {
            let next = self.schedule().next(Instant::now());
            tokio::select! {
                () = sleep_until(next) => {}
                () = self.wanted.notified() => {
                    if !self.schedule().may_fetch_for_token(Instant::now()) {
                        continue;
                    }
                }
            }
            let fetched = fetch().await;
            self.schedule().record(fetched.is_ok(), Instant::now());
            match fetched {
                Ok(keys) => {
                    tracing::info!(keys = keys.count(), "issuer keys fetched");
                    tokens.set_issuer_keys(keys);
                }
                Err(error) => {
                    tracing::error!(%error, "issuer keys not fetched; the last ones stay in force");
                }
            }
            self.ended.send_modify(|ended| *ended += 1);
        }
    }

    /// Whether a key that `token` names is unknown, and may be fetched now.
    fn needs_key(&self, tokens: &AccessTokens, token: &str) -> bool {
        self.schedule().may_fetch_for_token(Instant::now()) && tokens.needs_unknown_key(token)
    }

    /// Waits until the keys have been fetched again, or could not be.
    async fn fetch_now(&self) {
        let mut ended = self.ended.subscribe();
        self.wanted.notify_one();
        let _ = timeout(KEY_TIMEOUT, ended.changed()).await;
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

    /// Whether a key that `token` names is unknown, and may be fetched now.
    pub fn needs_issuer_key(&self, token: &str) -> bool {
        self.config.tokens.key_source.is_some() && self.issuer.needs_key(&self.tokens, token)
    }

    /// Waits until the keys of the issuer have been fetched again, or could not be. Call it where
    /// [`needs_issuer_key`](Self::needs_issuer_key) says so.
    pub async fn fetch_issuer_key(&self) {
        self.issuer.fetch_now().await;
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
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
    use jsonwebtoken::{Algorithm, EncodingKey, Header};
    use rcgen::KeyPair;
    use serde_json::json;
    use tokio::time::sleep;

    use super::*;
    use crate::auth::{claims::IssuerRules, token_rejection::TokenRejection};

    /// A JWK set with one ES256 key, and a token that it verifies at `NOW`.
    fn key_and_token(id: &str) -> (String, String) {
        let pair = KeyPair::generate().unwrap();
        let point = pair.public_key_raw();
        let [x, y] = [&point[1..33], &point[33..]].map(|half| BASE64_URL_SAFE_NO_PAD.encode(half));
        let jwk = json!({"kty":"EC","crv":"P-256","alg":"ES256","kid":id,"x":x,"y":y});
        let header = Header { kid: Some(id.to_owned()), ..Header::new(Algorithm::ES256) };
        let key = EncodingKey::from_ec_der(&pair.serialize_der());
        let claims = json!({"sub":"u1","exp":NOW + 60});
        (json!({"keys":[jwk]}).to_string(), jsonwebtoken::encode(&header, &claims, &key).unwrap())
    }

    const NOW: u64 = 1_700_000_000;

    /// An issuer that answers with a set of keys, or not at all, on a clock that the test moves.
    #[tokio::test(start_paused = true)]
    async fn the_last_keys_outlive_an_hour_without_the_issuer_and_new_ones_follow_it_within_a_minute()
     {
        let ((old_set, old), (new_set, new)) = (key_and_token("old"), key_and_token("new"));
        let rules = IssuerRules { user_claim: "sub".into(), ..IssuerRules::default() };
        let tokens = AccessTokens::new(&"secret".into(), None, Duration::from_secs(60));
        let tokens = Arc::new(tokens.with_issuer(vec![Algorithm::ES256], rules));
        let state = Arc::new(IssuerState::new(IssuerIntervals::default()));
        let answer = Arc::new(Mutex::new(Some(old_set)));
        let fetches = Arc::new(AtomicUsize::new(0));
        let running = {
            let (state, tokens) = (state.clone(), tokens.clone());
            let (answer, fetches) = (answer.clone(), fetches.clone());
            tokio::spawn(async move {
                let fetch = || {
                    fetches.fetch_add(1, Ordering::Relaxed);
                    let answer = answer.lock().unwrap().clone();
                    async move {
                        let url = "https://id.example.com/keys".parse().unwrap();
                        let set = answer.ok_or(FetchError::Timeout(url))?;
                        Ok::<_, IssuerKeysError>(IssuerKeys::from_jwk_set(set.as_bytes())?)
                    }
                };
                state.run(&tokens, fetch).await;
            })
        };
        let is_valid = |token: &str| tokens.verify(token, NOW).map(drop);
        sleep(SECOND).await;
        assert_eq!(is_valid(&old), Ok(()));

        *answer.lock().unwrap() = None;
        for minute in 1..=60_u32 {
            sleep(60 * SECOND).await;
            // Traffic: of users with good tokens, and of one whose token names a key that does not exist.
            if state.needs_key(&tokens, &new) {
                state.fetch_now().await;
            }
            assert_eq!(is_valid(&old), Ok(()), "minute {minute}");
            assert_eq!(is_valid(&new), Err(TokenRejection::UnknownKey));
            assert!(state.keys_age() >= Some(60 * minute * SECOND));
        }
        let during = fetches.load(Ordering::Relaxed) - 1;
        assert!((25..=70).contains(&during), "at most one a minute, for the unknown key: {during}");

        *answer.lock().unwrap() = Some(new_set);
        sleep(61 * SECOND).await;
        if state.needs_key(&tokens, &new) {
            state.fetch_now().await;
        }
        assert_eq!((is_valid(&new), is_valid(&old)), (Ok(()), Err(TokenRejection::UnknownKey)));
        assert!(state.keys_age() <= Some(60 * SECOND));
        running.abort();
    }

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
