//! Session tickets (RFC 8446 section 4.6.1, RFC 5077): a client that comes back shows one, and the costly half of the handshake is
//! left out, also after a restart of the server, and on another server of the same cluster.

use std::{
    cmp::Reverse,
    fmt, fs,
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    error::Unspecified,
    hmac, rand,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use rustls::server::ProducesTickets;
use secrecy::{ExposeSecret, SecretString};

use crate::{clock::unix_now, storage::atomic_file::replace_file};

/// How many seconds a key encrypts tickets: each hour of the clock has its own, so that servers agree on it.
const ROTATION: u64 = 60 * 60;

/// How many hours a key decrypts tickets, the one in which it encrypts them included. Who learns a key can read what was sent
/// over TLS 1.2 connections with its tickets; TLS 1.3 exchanges new keys each time.
pub const HOURS_KEPT: u64 = 24;

/// How often the hour, and the keys of other servers, are looked at.
const CHECK_INTERVAL: Duration = Duration::from_secs(60);

/// The same where the other servers could not be asked.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

const ID_LEN: usize = 16;
const KEY_LEN: usize = 32;

/// The keys that encrypt session tickets: random, new every hour, kept for a day, in a file across restarts, and encrypted for
/// the other servers of a cluster.
pub struct TicketKeys {
    /// Readable by its owner only. Each line holds the hour of a key, and its name and secret in base64.
    file: PathBuf,
    /// The newest first; of an hour the one that all servers share.
    keys: RwLock<Vec<Arc<TicketKey>>>,
    /// Derived from `SECRET_KEY`.
    seal: RandomizedNonceKey,
}

/// A key as other servers of the cluster get it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedTicketKey {
    /// The hour in which it encrypts tickets, since the Unix epoch.
    pub hour: u64,
    /// Its name and secret, encrypted, in base64.
    pub sealed: String,
}

struct TicketKey {
    /// The hour in which it encrypts tickets, since the Unix epoch.
    hour: u64,
    /// Stands in front of each ticket.
    id: [u8; ID_LEN],
    secret: [u8; KEY_LEN],
    cipher: RandomizedNonceKey,
}

impl TicketKey {
    fn new(hour: u64, id: [u8; ID_LEN], secret: [u8; KEY_LEN]) -> Result<Self, Unspecified> {
        let cipher = RandomizedNonceKey::new(&AES_256_GCM, &secret)?;
        Ok(Self { hour, id, secret, cipher })
    }

    fn random(hour: u64) -> Result<Self, Unspecified> {
        let (mut id, mut secret) = ([0; ID_LEN], [0; KEY_LEN]);
        rand::fill(&mut id)?;
        rand::fill(&mut secret)?;
        Self::new(hour, id, secret)
    }

    fn from_bytes(hour: u64, bytes: &[u8]) -> Option<Self> {
        let (id, secret) = bytes.split_first_chunk()?;
        Self::new(hour, *id, secret.try_into().ok()?).ok()
    }

    fn to_bytes(&self) -> Vec<u8> {
        [self.id.as_slice(), &self.secret].concat()
    }

    fn parse(line: &str) -> Option<Self> {
        let (hour, bytes) = line.split_once(' ')?;
        Self::from_bytes(hour.parse().ok()?, &BASE64_STANDARD.decode(bytes).ok()?)
    }

    fn to_line(&self) -> String {
        format!("{} {}\n", self.hour, BASE64_STANDARD.encode(self.to_bytes()))
    }

    /// Whether it decrypts tickets in this hour. One from the future, for the clock was moved back, does not.
    fn is_kept(&self, hour: u64) -> bool {
        hour.checked_sub(self.hour).is_some_and(|age| age < HOURS_KEPT)
    }
}

impl TicketKeys {
    /// Takes the keys that are in `file`, as far as they are not too old, and makes one for this hour where that has none. For
    /// other servers keys are encrypted under `secret_key`. Blocks on disk I/O.
    ///
    /// Where the file cannot be read or written, a line of the log says so, and no ticket outlives the process.
    ///
    /// # Errors
    ///
    /// The library has no AES.
    pub fn load(file: PathBuf, secret_key: &SecretString, now: u64) -> Result<Self, Unspecified> {
        let text = match fs::read_to_string(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            read => read,
        };
        let keys =
            text.map(|text| text.lines().filter_map(TicketKey::parse).map(Arc::new).collect());
        let keys = keys.unwrap_or_else(|error| {
            log_not_kept(&error);
            Vec::new()
        });
        let secret_key = hmac::Key::new(hmac::HMAC_SHA256, secret_key.expose_secret().as_bytes());
        let seal = hmac::sign(&secret_key, b"tls session tickets");
        let seal = RandomizedNonceKey::new(&AES_256_GCM, seal.as_ref())?;
        let tickets = Self { file, keys: RwLock::new(keys), seal };
        tickets.rotate(now);
        Ok(tickets)
    }

    /// Makes a key for this hour where it has none, and forgets those that are older than a day. Blocks on disk I/O.
    fn rotate(&self, now: u64) {
        let hour = now / ROTATION;
        self.change(|keys| {
            keys.retain(|key| key.is_kept(hour));
            if keys.first().is_none_or(|newest| newest.hour != hour)
                && let Ok(key) = TicketKey::random(hour)
            {
                keys.insert(0, Arc::new(key));
            }
        });
    }

    /// Takes the keys of other servers. Those of this hour encrypt tickets from now on. Blocks on disk I/O.
    fn adopt(&self, shared: &[SealedTicketKey]) {
        self.change(|keys| {
            for key in shared.iter().filter_map(|key| self.open(key)) {
                keys.retain(|known| known.id != key.id);
                keys.insert(0, Arc::new(key));
            }
            // Those of an hour stay in their order.
            keys.sort_by_key(|key| Reverse(key.hour));
        });
    }

    /// Writes the file if `change` has changed anything.
    fn change(&self, change: impl FnOnce(&mut Vec<Arc<TicketKey>>)) {
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        let to_lines = |keys: &[Arc<TicketKey>]| keys.iter().map(|key| key.to_line()).collect();
        let before: String = to_lines(&keys);
        change(&mut keys);
        let after: String = to_lines(&keys);
        drop(keys);
        if after == before {
            return;
        }
        let written = replace_file(&self.file, |file| {
            file.set_permissions(fs::Permissions::from_mode(0o600))?;
            file.write_all(after.as_bytes())
        });
        if let Err(error) = written {
            log_not_kept(&error);
        }
    }

    /// The newest key, for other servers.
    fn seal_newest(&self) -> Option<SealedTicketKey> {
        let key = self.find(|_| true)?;
        let (mut sealed, aad) = (key.to_bytes(), Aad::from(key.hour.to_be_bytes()));
        let nonce = self.seal.seal_in_place_append_tag(aad, &mut sealed).ok()?;
        let sealed = BASE64_STANDARD.encode([nonce.as_ref().as_slice(), &sealed].concat());
        Some(SealedTicketKey { hour: key.hour, sealed })
    }

    /// A key that [`seal_newest`](Self::seal_newest) has sealed on a server with the same `SECRET_KEY`.
    fn open(&self, SealedTicketKey { hour, sealed }: &SealedTicketKey) -> Option<TicketKey> {
        let sealed = BASE64_STANDARD.decode(sealed).ok()?;
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut sealed = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let aad = Aad::from(hour.to_be_bytes());
        let plain = self.seal.open_in_place(nonce, aad, &mut sealed).ok()?;
        TicketKey::from_bytes(*hour, plain)
    }

    /// Makes new keys and forgets old ones for as long as it is polled. `share` gives the newest key to the other servers,
    /// unless they have one of its hour, and returns what they have; nothing where they cannot be asked.
    pub async fn run_rotation(
        self: Arc<Self>,
        share: impl AsyncFn(SealedTicketKey) -> Option<Vec<SealedTicketKey>>,
    ) {
        loop {
            let shared = match self.seal_newest() {
                Some(newest) => share(newest).await,
                None => None,
            };
            let pause = if shared.is_some() { CHECK_INTERVAL } else { RETRY_INTERVAL };
            let keys = self.clone();
            let adopt = move || keys.adopt(&shared.unwrap_or_default());
            let _ = tokio::task::spawn_blocking(adopt).await;
            tokio::time::sleep(pause).await;
            let keys = self.clone();
            let _ = tokio::task::spawn_blocking(move || keys.rotate(unix_now())).await;
        }
    }

    fn find(&self, is_meant: impl Fn(&TicketKey) -> bool) -> Option<Arc<TicketKey>> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.iter().find(|key| is_meant(key)).cloned()
    }
}

fn log_not_kept(error: &io::Error) {
    tracing::warn!(%error, "keys of TLS session tickets not kept; clients make a full handshake after a restart");
}

impl ProducesTickets for TicketKeys {
    fn enabled(&self) -> bool {
        true
    }

    /// What is left to the key of an hour at its end.
    fn lifetime(&self) -> u32 {
        u32::try_from((HOURS_KEPT - 1) * ROTATION).unwrap_or_default()
    }

    /// A ticket: the name of the key, the nonce, and the encrypted state with its tag.
    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let key = self.find(|_| true)?;
        let mut sealed = plain.to_vec();
        let nonce = key.cipher.seal_in_place_append_tag(Aad::from(key.id), &mut sealed).ok()?;
        Some([key.id.as_slice(), nonce.as_ref(), &sealed].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (id, rest) = ticket.split_first_chunk::<ID_LEN>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let key = self.find(|key| key.id == *id)?;
        let mut sealed = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let plain = key.cipher.open_in_place(nonce, Aad::from(key.id), &mut sealed).ok()?;
        Some(plain.to_vec())
    }
}

impl fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketKeys").field("file", &self.file).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten minutes after the full hour.
    const START: u64 = 472_222 * ROTATION + 600;

    fn keys() -> (TicketKeys, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        (load(folder.path().join("tickets"), START), folder)
    }

    fn load(file: PathBuf, now: u64) -> TicketKeys {
        TicketKeys::load(file, &"0123456789abcdef0123456789abcdef".into(), now).unwrap()
    }

    fn decrypts(keys: &TicketKeys, ticket: &[u8]) -> bool {
        keys.decrypt(ticket).as_deref() == Some(b"state".as_slice())
    }

    #[test]
    fn a_ticket_is_read_for_a_day_and_not_longer() {
        let (keys, _folder) = keys();
        let ticket = keys.encrypt(b"state").unwrap();

        for hour in 1..24 {
            keys.rotate(START + hour * ROTATION);
            assert!(decrypts(&keys, &ticket), "{hour}");
            assert_ne!(keys.encrypt(b"state").unwrap()[..ID_LEN], ticket[..ID_LEN]);
        }
        keys.rotate(START + HOURS_KEPT * ROTATION);
        assert_eq!(keys.decrypt(&ticket), None);
        assert_eq!(keys.keys.read().unwrap().len(), 24);
    }

    #[test]
    fn keys_outlive_the_process_in_a_file_of_their_owner() {
        let (keys, folder) = keys();
        let ticket = keys.encrypt(b"state").unwrap();
        let file = folder.path().join("tickets");

        let next = load(file.clone(), START + 1);
        assert!(decrypts(&next, &ticket));
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

        let later = load(file, START + HOURS_KEPT * ROTATION);
        assert_eq!(later.decrypt(&ticket), None);
    }

    #[test]
    fn a_clock_that_was_moved_back_makes_no_key_live_longer() {
        let (keys, _folder) = keys();
        let ticket = keys.encrypt(b"state").unwrap();

        keys.rotate(START - ROTATION);

        assert_eq!(keys.decrypt(&ticket), None);
        assert_eq!(keys.keys.read().unwrap().len(), 1);
    }

    #[test]
    fn servers_with_one_secret_key_share_the_key_that_was_offered_first() {
        let ((first, _folder), (second, _folder_2)) = (keys(), keys());
        let (of_first, of_second) =
            (first.encrypt(b"state").unwrap(), second.encrypt(b"state").unwrap());
        let offered = [first.seal_newest().unwrap()];

        for server in [&first, &second] {
            server.adopt(&offered);
            server.adopt(&offered);
        }

        assert!(decrypts(&second, &of_first) && decrypts(&second, &of_second));
        assert!(decrypts(&first, &second.encrypt(b"state").unwrap()));
        assert_eq!([&first, &second].map(|server| server.keys.read().unwrap().len()), [1, 2]);
        second.rotate(START + ROTATION);
        second.adopt(&offered);
        assert!(!decrypts(&first, &second.encrypt(b"state").unwrap()), "the hour is over");
        second.rotate(START + HOURS_KEPT * ROTATION);
        assert!(!decrypts(&second, &of_first));
    }

    #[test]
    fn what_others_have_sealed_or_changed_is_not_adopted() {
        let ((keys, _folder), folder) = (keys(), tempfile::tempdir().unwrap());
        let other_secret = "another-secret-key-of-32-bytes-and-more".into();
        let other = TicketKeys::load(folder.path().join("tickets"), &other_secret, START).unwrap();
        let SealedTicketKey { hour, sealed } = self::keys().0.seal_newest().unwrap();
        let shorter = sealed[..sealed.len() - 4].to_owned();

        keys.adopt(&[
            other.seal_newest().unwrap(),
            SealedTicketKey { hour: hour + 1, sealed },
            SealedTicketKey { hour, sealed: shorter },
            SealedTicketKey { hour, sealed: "no base64".to_owned() },
            SealedTicketKey { hour, sealed: String::new() },
        ]);

        assert_eq!(keys.keys.read().unwrap().len(), 1);
    }

    #[test]
    fn what_is_not_a_ticket_of_ours_is_passed_over() {
        let (keys, _folder) = keys();
        let ticket = keys.encrypt(b"state").unwrap();

        for length in 0..ticket.len() {
            assert_eq!(keys.decrypt(&ticket[..length]), None);
            let mut changed = ticket.clone();
            changed[length] ^= 1;
            assert_eq!(keys.decrypt(&changed), None);
        }
        let (others, _folder) = self::keys();
        assert_eq!(others.decrypt(&ticket), None);
    }

    #[test]
    fn a_file_that_is_damaged_or_cannot_be_written_costs_only_the_tickets() {
        let folder = tempfile::tempdir().unwrap();
        let damaged = folder.path().join("tickets");
        fs::write(&damaged, format!("{} AAAA\nnothing\n\u{0}\n", START / ROTATION)).unwrap();

        for file in [damaged, folder.path().join("missing/tickets")] {
            let keys = load(file, START);
            let ticket = keys.encrypt(b"state").unwrap();
            assert!(decrypts(&keys, &ticket));
        }
    }

    #[test]
    fn no_secret_is_printed() {
        let (keys, _folder) = keys();
        let secret = format!("{:?}", keys.keys.read().unwrap()[0].secret);
        assert!(!format!("{keys:?}").contains(&secret));
    }
}
