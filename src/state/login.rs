//! Logins: from a username and a password to an access token, and its end by a logout.

use std::{net::IpAddr, time::Duration};

use aws_lc_rs::hmac;
use base64::{Engine, prelude::BASE64_STANDARD};
use secrecy::SecretString;
use tokio::time::Instant;
use tracing::Instrument;

use super::{AppState, AppStateInner};
use crate::{
    auth::{access_token::Claims, password::dummy_hash, revocation, users::Account},
    clock::unix_now,
    limits::AuthEvent,
    metrics::{Limit, Login},
};

/// A token, as REST hands it out.
pub struct IssuedToken {
    /// The token itself.
    pub token: SecretString,
    /// How long it is good for.
    pub lifetime: Duration,
}

/// Why a login failed.
#[derive(Debug)]
pub enum LoginError {
    /// No such active account, or another password: which of them is not told.
    Wrong,
    /// Too many failures; how long to wait.
    Locked(Duration),
    /// Too many wait already.
    Busy,
    /// The token could not be signed.
    Internal(jsonwebtoken::errors::Error),
}

impl AppState {
    /// A name and a password become a token.
    ///
    /// Goes on when nobody waits for it any more: hanging up must not free the place among those
    /// who hash, nor make a failure not count.
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
            app.metrics.logged_in(match &issued {
                Ok(_) => Login::Done,
                Err(LoginError::Wrong) => Login::Wrong,
                Err(LoginError::Locked(_)) => Login::LockedOut,
                Err(LoginError::Busy) => Login::Busy,
                Err(LoginError::Internal(_)) => Login::Failed,
            });
            issued
        };
        let login = tokio::spawn(login.in_current_span());
        #[expect(clippy::expect_used, reason = "see the message")]
        login.await.expect("a login does not panic, and is never aborted")
    }

    /// Ends a token, and the sockets that stand on it; once this returns, also for the next process.
    /// A token that is not good needs no end.
    pub async fn log_out(&self, token: &str) {
        let Ok((account, claims)) = self.identify(token) else { return };
        self.revoked_tokens.insert(&claims);
        self.token_sessions.end_token(&account.username, claims.fingerprint);
        tracing::info!(user = account.username, "logged out");
        let app = self.clone();
        let _ = tokio::task::spawn_blocking(move || app.save_revoked()).await;
        if let Some(cluster) = &self.cluster {
            let Claims { username, expires_at, fingerprint, .. } = &claims;
            cluster.publish_logout(&revocation::line_of(username, *expires_at, fingerprint)).await;
        }
    }
}

impl AppStateInner {
    /// A new token for somebody who has shown who he is. `account` as it was then: a token that was
    /// logged in with a password must not outlive it.
    ///
    /// # Errors
    ///
    /// Only if signing itself fails.
    pub fn issue(&self, account: &Account) -> Result<IssuedToken, jsonwebtoken::errors::Error> {
        let token = self.tokens.issue(&account.username, &account.stamp(), unix_now())?;
        Ok(IssuedToken { token, lifetime: self.tokens.lifetime() })
    }

    /// How many logins are being checked or wait for it.
    pub fn pending_logins(&self) -> usize {
        self.logins.in_use()
    }

    /// Somebody waits until there is time to check his password, or is turned away.
    async fn queue_login(
        &self,
        username: &str,
        password: SecretString,
        address: IpAddr,
    ) -> Result<IssuedToken, LoginError> {
        self.lockouts()
            .check_login(&self.username_digest(username), address, Instant::now())
            .map_err(LoginError::Locked)
            .inspect_err(|_| self.metrics.limited(Limit::FailedLogins))?;
        let _place = self.logins.acquire(address).ok_or_else(|| {
            tracing::warn!(%address, "login turned away: too many wait");
            self.metrics.limited(Limit::WaitingLogins);
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
            .inspect_err(|_| self.metrics.limited(Limit::FailedLogins))?;
        match account {
            Some(account) if matches && account.is_active => {
                self.record_auth_event(&AuthEvent::LoggedIn { name, address });
                tracing::info!(user = account.username, "logged in");
                self.issue(&account).map_err(LoginError::Internal)
            }
            known => {
                self.record_auth_event(&AuthEvent::LoginFailed { name, address });
                // Somebody may have typed the password into the field for the name.
                let user = known.map_or_else(|| "(unknown)".to_owned(), |account| account.username);
                tracing::warn!(user, %address, "login failed");
                Err(LoginError::Wrong)
            }
        }
    }

    /// Notes an attempt here and, where it matters, on every other server.
    pub(super) fn record_auth_event(&self, attempt: &AuthEvent) {
        let is_news = self.lockouts().record(attempt, Instant::now());
        if let Some(cluster) = self.cluster.as_ref().filter(|_| is_news)
            && let Ok(attempt) = serde_json::to_string(attempt)
        {
            cluster.report_auth_event(attempt);
        }
    }

    /// What lockouts know a name by, here and on other servers: somebody may have typed a password into the field
    /// for it.
    fn username_digest(&self, username: &str) -> String {
        let tag = hmac::sign(&self.digest_key, username.as_bytes());
        BASE64_STANDARD.encode(tag)
    }
}
