//! When the keys of an issuer are fetched, on a clock that the test moves.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::KeyPair;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::*;
use crate::auth::{claims::IssuerRules, token_rejection::TokenRejection};

const SECOND: Duration = Duration::from_secs(1);

/// Seconds since the Unix epoch, by which tokens are judged.
const NOW: u64 = 1_700_000_000;

/// How long the issuer takes to answer, with the keys that it had when it was asked.
const LATENCY: Duration = Duration::from_secs(2);

/// A public key as a JWK, and a token that it verifies.
#[derive(Clone)]
struct Signed {
    jwk: Value,
    token: String,
}

fn signed_by(id: &str) -> Signed {
    let pair = KeyPair::generate().unwrap();
    let point = pair.public_key_raw();
    let [x, y] = [&point[1..33], &point[33..]].map(|half| BASE64_URL_SAFE_NO_PAD.encode(half));
    let jwk = json!({"kty":"EC","crv":"P-256","alg":"ES256","kid":id,"x":x,"y":y});
    let header = Header { kid: Some(id.to_owned()), ..Header::new(Algorithm::ES256) };
    let key = EncodingKey::from_ec_der(&pair.serialize_der());
    let claims = json!({"sub":"u1","exp":NOW + 60});
    Signed { jwk, token: jsonwebtoken::encode(&header, &claims, &key).unwrap() }
}

fn ip(number: u8) -> IpAddr {
    [192, 0, 2, number].into()
}

/// An issuer, and what fetches its keys.
struct Trial {
    state: IssuerState,
    tokens: AccessTokens,
    /// `None` while it cannot be reached.
    keys: Mutex<Option<Vec<Value>>>,
    fetches: AtomicUsize,
}

impl Trial {
    /// Returns once the keys have been fetched.
    async fn start(keys: &[&Signed]) -> Arc<Self> {
        let rules = IssuerRules { user_claim: "sub".into(), ..IssuerRules::default() };
        let tokens = AccessTokens::new(&"secret".into(), None, Duration::from_secs(60));
        let trial = Arc::new(Self {
            state: IssuerState::new(IssuerIntervals::default()),
            tokens: tokens.with_issuer(vec![Algorithm::ES256], rules),
            keys: Mutex::default(),
            fetches: AtomicUsize::new(0),
        });
        trial.serve(keys);
        tokio::spawn({
            let trial = trial.clone();
            async move { trial.state.run(&trial.tokens, || trial.fetch()).await }
        });
        sleep(LATENCY + SECOND).await;
        assert_eq!(trial.fetches(), 1);
        trial
    }

    async fn fetch(&self) -> Result<IssuerKeys, IssuerKeysError> {
        self.fetches.fetch_add(1, Ordering::Relaxed);
        let keys = self.keys.lock().unwrap().clone();
        sleep(LATENCY).await;
        let keys =
            keys.ok_or(FetchError::Timeout("https://id.example.com/keys".parse().unwrap()))?;
        Ok(IssuerKeys::from_jwk_set(json!({ "keys": keys }).to_string().as_bytes())?)
    }

    fn serve(&self, keys: &[&Signed]) {
        *self.keys.lock().unwrap() = Some(keys.iter().map(|key| key.jwk.clone()).collect());
    }

    fn fetches(&self) -> usize {
        self.fetches.load(Ordering::Relaxed)
    }

    /// What a request with this token does.
    async fn verify(&self, signed: &Signed) -> Result<(), TokenRejection> {
        self.verify_from(ip(1), signed).await
    }

    /// The same for a request from an address.
    async fn verify_from(&self, address: IpAddr, signed: &Signed) -> Result<(), TokenRejection> {
        if self.state.needs_key(&self.tokens, &signed.token, address) {
            self.state.await_key(&self.tokens, &signed.token, address).await;
        }
        self.tokens.verify(&signed.token, NOW).map(drop)
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_keys_outlive_an_hour_without_the_issuer_and_new_ones_follow_it_within_a_minute() {
    let (old, new) = (signed_by("old"), signed_by("new"));
    let trial = Trial::start(&[&old]).await;

    *trial.keys.lock().unwrap() = None;
    for minute in 1..=60_u32 {
        sleep(60 * SECOND).await;
        // Traffic: of users with good tokens, and of one whose token names a key that does not exist.
        assert_eq!(trial.verify(&new).await, Err(TokenRejection::UnknownKey));
        assert_eq!(trial.verify(&old).await, Ok(()), "minute {minute}");
        assert!(trial.state.keys_age() >= Some(60 * minute * SECOND));
    }
    let during = trial.fetches() - 1;
    assert!((25..=70).contains(&during), "at most one a minute, for the unknown key: {during}");

    trial.serve(&[&new]);
    sleep(61 * SECOND).await;
    assert_eq!(trial.verify(&new).await, Ok(()));
    assert_eq!(trial.verify(&old).await, Err(TokenRejection::UnknownKey));
    assert!(trial.state.keys_age() <= Some(60 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn a_token_is_not_refused_for_a_fetch_that_is_under_way_when_the_keys_change() {
    let (old, new, newer) = (signed_by("old"), signed_by("new"), signed_by("newer"));
    let trial = Trial::start(&[&old]).await;

    // One that was due.
    sleep(IssuerIntervals::default().refresh - SECOND / 2).await;
    assert_eq!(trial.fetches(), 2, "it runs");
    trial.serve(&[&new]);
    assert_eq!(trial.verify(&new).await, Ok(()));
    assert_eq!(trial.fetches(), 3);

    // One for the token of somebody else, whose key does not exist.
    sleep(61 * SECOND).await;
    let nobody = signed_by("nobody");
    let ask = async |after: Duration, signed: &Signed| {
        sleep(after).await;
        trial.verify(signed).await
    };
    let rotate = async {
        sleep(SECOND).await;
        assert_eq!(trial.fetches(), 4, "it runs");
        trial.serve(&[&newer]);
    };
    let (refused, (), accepted, known) = tokio::join!(
        ask(Duration::ZERO, &nobody),
        rotate,
        futures_util::future::join_all([&newer; 3].map(|signed| ask(SECOND * 3 / 2, signed))),
        ask(SECOND, &new),
    );
    assert_eq!(refused, Err(TokenRejection::UnknownKey));
    assert_eq!(accepted, [Ok(()), Ok(()), Ok(())]);
    assert_eq!(known, Ok(()), "a known key does not wait");
    assert_eq!(trial.fetches(), 5, "one for all of them");
}

#[tokio::test(start_paused = true)]
async fn a_token_with_a_new_key_is_accepted_right_after_a_regular_fetch() {
    let (old, new) = (signed_by("old"), signed_by("new"));
    let trial = Trial::start(&[&old]).await;

    trial.serve(&[&new]);
    assert_eq!(trial.verify(&new).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_new_key_is_accepted_at_once_beside_a_flood_of_tokens_with_unknown_keys_from_one_address()
{
    let (known, new, unknown) = (signed_by("known"), signed_by("new"), signed_by("unknown"));
    let trial = Trial::start(&[&known]).await;

    let began_at = Instant::now();
    let flood = async |offset: u32| {
        sleep(offset * SECOND / 30).await;
        while began_at.elapsed() < 600 * SECOND {
            assert_eq!(trial.verify(&unknown).await, Err(TokenRejection::UnknownKey));
            sleep(SECOND / 10).await;
        }
    };
    let rotate = async {
        sleep(300 * SECOND).await;
        trial.serve(&[&known, &new]);
        assert_eq!(trial.verify_from(ip(2), &new).await, Ok(()));
    };
    tokio::join!(flood(0), flood(1), flood(2), rotate);

    let fetches = trial.fetches() - 1;
    assert!((10..=14).contains(&fetches), "one a minute for the flood: {fetches}");
}

#[tokio::test(start_paused = true)]
async fn a_new_key_is_accepted_within_20_s_beside_a_flood_from_many_addresses() {
    let (known, new, unknown) = (signed_by("known"), signed_by("new"), signed_by("unknown"));
    let trial = Trial::start(&[&known]).await;

    let began_at = Instant::now();
    let flood = async |address: u8| {
        while began_at.elapsed() < 400 * SECOND {
            assert_eq!(
                trial.verify_from(ip(address), &unknown).await,
                Err(TokenRejection::UnknownKey)
            );
            sleep(SECOND).await;
        }
    };
    let rotate = async {
        sleep(300 * SECOND).await;
        trial.serve(&[&known, &new]);
        let rotated_at = Instant::now();
        while trial.verify_from(ip(0), &new).await.is_err() {
            sleep(SECOND).await;
        }
        assert!(rotated_at.elapsed() < 25 * SECOND, "{:?}", rotated_at.elapsed());
    };
    tokio::join!(futures_util::future::join_all((1..=50).map(flood)), rotate);

    let fetches = trial.fetches() - 1;
    assert!((15..=24).contains(&fetches), "three a minute: {fetches}");
}

#[tokio::test(start_paused = true)]
async fn a_token_waits_five_seconds_for_an_issuer_that_does_not_answer() {
    let (old, new) = (signed_by("old"), signed_by("new"));
    let trial = Trial::start(&[&old]).await;
    let state = IssuerState::new(IssuerIntervals::default());
    let never = state.run(&trial.tokens, std::future::pending);
    let began_at = Instant::now();

    tokio::select! {
        () = never => {}
        () = state.await_key(&trial.tokens, &new.token, ip(1)) => {}
    }

    assert_eq!(began_at.elapsed(), KEY_TIMEOUT);
}

#[test]
fn keys_are_fetched_regularly_and_soon_after_a_failure() {
    let start = Instant::now();
    let mut schedule = FetchSchedule::new(IssuerIntervals::default());
    assert_eq!(schedule.next(start), start);

    schedule.end(true, start);
    assert_eq!(schedule.next(start), start + 600 * SECOND);
    let mut pauses = Vec::new();
    for _ in 0..9 {
        schedule.end(false, start);
        pauses.push((schedule.next(start) - start).as_secs());
    }
    assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 320, 600, 600]);
    assert_eq!(schedule.fetched_at, Some(start), "the last keys stay in force");
    schedule.end(true, start + SECOND);
    assert_eq!(schedule.next(start), start + 601 * SECOND);
}

#[test]
fn a_token_waits_for_a_fetch_that_began_after_it_came_and_causes_it_where_its_address_may() {
    let start = Instant::now();
    let at = |seconds| start + seconds * SECOND;
    for is_fetched in [true, false] {
        let mut schedule = FetchSchedule::new(IssuerIntervals::default());
        let prospect =
            |schedule: &FetchSchedule, asked, now| schedule.prospect(at(asked), ip(1), at(now));
        assert_eq!(prospect(&schedule, 0, 0), Prospect::Fetch);
        schedule.begin(at(1));
        schedule.end(is_fetched, at(2));
        assert_eq!(prospect(&schedule, 1, 2), Prospect::Nothing, "it was for this one, too");

        assert_eq!(schedule.claim(at(3), ip(1), at(3)), Prospect::Fetch);
        assert_eq!(schedule.claim(at(4), ip(1), at(4)), Prospect::Running, "soon");
        schedule.begin(at(4));
        assert_eq!(prospect(&schedule, 5, 5), Prospect::Running);
        schedule.end(is_fetched, at(6));

        assert_eq!(
            schedule.claim(at(5), ip(1), at(6)),
            Prospect::Fetch,
            "it came during the first"
        );
        schedule.begin(at(6));
        schedule.end(is_fetched, at(8));
        assert_eq!(prospect(&schedule, 7, 8), Prospect::Nothing, "no third from this address");
        assert_eq!(schedule.prospect(at(7), ip(2), at(8)), Prospect::Fetch, "another address");
        assert_eq!(prospect(&schedule, 62, 62), Prospect::Nothing);
        assert_eq!(prospect(&schedule, 64, 64), Prospect::Fetch);
    }
}
