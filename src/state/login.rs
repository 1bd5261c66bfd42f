//! Logins: from a username and a password to an access token, and its end by a logout.

use std::{net::IpAddr, time::Duration};

use aws_lc_rs::hmac;
use base64::{Engine, prelude::BASE64_STANDARD};
use secrecy::SecretString;
use tokio::time::Instant;
use tracing::Instrument;

use super::{AppState, AppStateInner, NotPersisted};
use crate::{
    auth::{
        access_token::{AccessTokens, Claims},
        password::dummy_hash,
        revocation,
        users::Account,
    },
    clock::unix_now,
    config::AuthSettings,
    limits::{AuthEvent, RefusalKind, count_refusal, log_refusal},
    metrics::{LimitKind, LoginOutcome},
};

/// Issues and verifies tokens by these settings.
pub fn access_tokens(auth: &AuthSettings) -> AccessTokens {
    let (key, previous) = (&auth.jwt_secret_key, auth.jwt_secret_key_previous.as_ref());
    AccessTokens::new(key, previous, auth.token_lifetime).with_max_lifetime(auth.max_token_lifetime)
}

/// An access token, as REST returns it.
pub struct IssuedToken {
    /// The token itself.
    pub token: SecretString,
    /// How long it is valid.
    pub lifetime: Duration,
}

/// Why a login failed.
#[derive(Debug)]
pub enum LoginError {
    /// There is no such active account, or the password is wrong: callers are not told which.
    Wrong,
    /// Too many failed logins; how long to wait.
    Locked(Duration),
    /// Too many logins are waiting.
    Busy,
    /// The token could not be signed.
    Internal(jsonwebtoken::errors::Error),
}

impl AppState {
    /// Checks a username and a password, and issues an access token.
    ///
    /// Runs to its end when the caller is dropped: a client that disconnects must neither free its permit while the
    /// password is hashed, nor keep a failure from being counted.
    ///
    /// # Errors
    ///
    /// [`LoginError`].
    pub async fn login(
        &self,
        username: String,
        password: SecretString,
        address: IpAddr,
    ) -> Result<IssuedToken, LoginError> {
        let app = self.clone();
        let login = async move {
            let issued = app.queue_login(&username, password, address).await;
            app.metrics.record_login(match &issued {
                Ok(_) => LoginOutcome::Done,
                Err(LoginError::Wrong) => LoginOutcome::WrongCredentials,
                Err(LoginError::Locked(_)) => LoginOutcome::LockedOut,
                Err(LoginError::Busy) => LoginOutcome::Busy,
                Err(LoginError::Internal(_)) => LoginOutcome::Failed,
            });
            issued
        };
        let login = tokio::spawn(login.in_current_span());
        #[expect(clippy::expect_used, reason = "see the message")]
        login.await.expect("a login does not panic, and is never aborted")
    }

    /// Revokes an access token that a client at `address` has sent, and ends its sessions. Once this returns, the revocation
    /// is on disk. An invalid token is ignored.
    ///
    /// # Errors
    ///
    /// [`NotPersisted`]; then the token is revoked for as long as this process runs.
    pub async fn log_out(&self, token: &str, address: IpAddr) -> Result<(), NotPersisted> {
        let Ok((account, claims)) = self.identify(token, address) else { return Ok(()) };
        self.revoked_tokens.insert(&claims);
        self.token_sessions.end_token(&account.username, claims.fingerprint);
        tracing::info!(user = account.username, "logged out");
        let app = self.clone();
        let saved = tokio::task::spawn_blocking(move || app.save_revoked()).await;
        let Claims { username, expires_at, fingerprint, .. } = &claims;
        let line = revocation::line_of(username, *expires_at, fingerprint);
        self.rooms.backend().publish_logout(&line).await;
        saved.unwrap_or(Err(NotPersisted))
    }
}

impl AppStateInner {
    /// Issues an access token for an authenticated account. `account` is as it was when its password was checked: a
    /// token must not outlive that password.
    ///
    /// # Errors
    ///
    /// Only if signing itself fails.
    pub fn issue(&self, account: &Account) -> Result<IssuedToken, jsonwebtoken::errors::Error> {
        let token = self.tokens.issue(&account.username, &account.stamp(), unix_now())?;
        Ok(IssuedToken { token, lifetime: self.tokens.lifetime() })
    }

    /// How many logins are checked now or wait.
    pub fn pending_logins(&self) -> usize {
        self.logins.in_use()
    }

    /// Waits for a free thread to check a password, or fails where too many wait.
    async fn queue_login(
        &self,
        username: &str,
        password: SecretString,
        address: IpAddr,
    ) -> Result<IssuedToken, LoginError> {
        self.lockouts()
            .check_login(&self.username_digest(username), address, Instant::now())
            .map_err(LoginError::Locked)
            .inspect_err(|_| self.metrics.record_limit(LimitKind::FailedLogins))?;
        let _permit = self.logins.acquire(address).ok_or_else(|| {
            log_refusal(RefusalKind::WaitingLogins, address, Instant::now());
            self.metrics.record_limit(LimitKind::WaitingLogins);
            LoginError::Busy
        })?;
        self.check_login(username, password, address).await
    }

    async fn check_login(
        &self,
        username: &str,
        password: SecretString,
        address: IpAddr,
    ) -> Result<IssuedToken, LoginError> {
        let name = self.username_digest(username);
        let still_allowed = || self.lockouts().check_login(&name, address, Instant::now());
        let account = self.users.find(username);
        let hash = match &account {
            Some(account) => account.hashed_password.clone(),
            None => dummy_hash(self.users.usual_cost()),
        };
        let checked = self.passwords.check(password, hash, still_allowed).await;
        let matches = checked
            .map_err(LoginError::Locked)
            .inspect_err(|_| self.metrics.record_limit(LimitKind::FailedLogins))?;
        match account {
            Some(account) if matches && account.is_active => {
                self.record_auth_event(&AuthEvent::LoggedIn { name, address });
                tracing::info!(user = account.username, "logged in");
                self.issue(&account).map_err(LoginError::Internal)
            }
            account => {
                self.record_auth_event(&AuthEvent::LoginFailed { name, address });
                if let Some(count) = count_refusal(RefusalKind::Login, address, Instant::now()) {
                    // The username of an unknown account may be a password in the wrong field.
                    let user = account.as_ref().map_or("(unknown)", |account| &account.username);
                    tracing::warn!(user, %address, count, "login failed");
                }
                Err(LoginError::Wrong)
            }
        }
    }

    /// Records a login or a rejected token here and, where it changes a lockout, on every other node.
    pub(super) fn record_auth_event(&self, event: &AuthEvent) {
        let has_changed = self.lockouts().record(event, Instant::now());
        if has_changed && let Ok(event) = serde_json::to_string(event) {
            self.rooms.backend().report_auth_event(event);
        }
    }

    /// What stands for a username in lockouts, here and on other nodes: a user may have typed the password into the
    /// field for the name.
    fn username_digest(&self, username: &str) -> String {
        let tag = hmac::sign(&self.digest_key, username.as_bytes());
        BASE64_STANDARD.encode(tag)
    }
}
