//! Logins: from a username and a password to an access token, and its end by a logout.

use std::{net::IpAddr, time::Duration};

use aws_lc_rs::hmac;
use base64::{Engine, prelude::BASE64_STANDARD};
use secrecy::{ExposeSecret, SecretString};
use tokio::{runtime::Handle, time::Instant};
use tracing::Span;

use super::{AppState, AppStateInner, NotPersisted, login_queue::Displaced};
use crate::{
    auth::{
        access_token::{AccessTokens, MintError, MintRequest, NewToken},
        claims::IssuerRules,
        password::{dummy_hash, has_hash},
        revocation::{Revocation, RevokedTokens},
        token_sessions::TokenSessions,
        users::Account,
    },
    clock::unix_now,
    config::{StartupSettings, TokenSettings},
    delivery::DisconnectReason,
    limits::{AuthEvent, RefusalKind, count_refusal, log_refusal},
    metrics::{LimitKind, LoginOutcome},
};

/// Issues and verifies tokens by these settings.
pub fn access_tokens(startup: &StartupSettings) -> AccessTokens {
    let StartupSettings { auth, tokens, .. } = startup;
    let (key, previous) = (&auth.jwt_secret_key, auth.jwt_secret_key_previous.as_ref());
    let TokenSettings { issuer, audience, user_claim, .. } = tokens.clone();
    AccessTokens::new(key, previous, auth.token_lifetime)
        .with_max_lifetime(auth.max_token_lifetime)
        .with_issuer(tokens.algorithms.clone(), IssuerRules { issuer, audience, user_claim })
}

/// How long it is kept that a user's tokens were ended, where `MAX_TOKEN_LIFETIME` does not say how long tokens are valid.
const LONGEST_TOKEN: Duration = Duration::from_secs(400 * 86_400);

/// Applies a revocation, and ends the sessions that it concerns.
pub(super) fn end_revoked(
    revoked: &RevokedTokens,
    sessions: &TokenSessions,
    revocation: &Revocation,
) {
    revoked.insert(revocation);
    match revocation.username() {
        Some(username) => sessions.end_of_user(username, |claims| revoked.contains(claims)),
        None => sessions
            .end_revoked(|claims| revoked.contains(claims).then_some(DisconnectReason::LoggedOut)),
    }
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
    /// `PASSWORD_LOGIN` is `false`.
    SwitchedOff,
    /// The token could not be signed.
    Internal(jsonwebtoken::errors::Error),
}

impl AppState {
    /// Checks a username and a password, and issues an access token.
    ///
    /// Where the caller is dropped while the login waits for its turn, the password is not checked. A check that has begun runs
    /// to its end: a client that disconnects must not keep a failure from being counted.
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
        if !self.config.tokens.password_login {
            return Err(LoginError::SwitchedOff);
        }
        let name = self.username_digest(&username);
        self.check_lockout(&name, address)?;
        let (app, span, runtime) = (self.clone(), Span::current(), Handle::current());
        let account = name.as_str().into();
        let check = move || {
            // For the clock.
            let _runtime = runtime.enter();
            span.in_scope(|| app.check_login(&username, &password, name, address))
        };
        self.logins.run(address, account, check).await.unwrap_or_else(|Displaced| {
            log_refusal(RefusalKind::WaitingLogins, address, Instant::now());
            self.metrics.record_limit(LimitKind::WaitingLogins);
            self.metrics.record_login(LoginOutcome::Busy);
            Err(LoginError::Busy)
        })
    }

    /// Ends an access token that a client at `address` has sent, with all tokens of its session, or with `all` tokens of its user
    /// that have been issued until now. Their WebSockets are closed. Once this returns, the revocation is on disk. An invalid
    /// token is ignored.
    ///
    /// # Errors
    ///
    /// [`NotPersisted`]; then the tokens are ended for as long as this process runs.
    pub async fn log_out(
        &self,
        token: &str,
        address: IpAddr,
        all: bool,
    ) -> Result<(), NotPersisted> {
        let Ok((account, claims)) = self.identify(token, address) else { return Ok(()) };
        let now = unix_now();
        // No token of the session outlives the last one that it can have been refreshed to.
        let lifetime = self.tokens.lifetime().as_secs();
        let mut revocations = vec![Revocation::of_session(&claims, now + lifetime)];
        if all {
            revocations.push(self.end_issued_until(&account.username, now));
        }
        if let Some(count) = count_refusal(RefusalKind::Logout, address, Instant::now()) {
            tracing::info!(user = account.username, all, count, "logged out");
        }
        self.revoke(&revocations).await
    }

    /// Applies revocations here and on all nodes, ends the sessions that they concern, and saves them.
    ///
    /// # Errors
    ///
    /// [`NotPersisted`]; then they apply for as long as this process runs.
    pub async fn revoke(&self, revocations: &[Revocation]) -> Result<(), NotPersisted> {
        for revocation in revocations {
            end_revoked(&self.revoked_tokens, &self.token_sessions, revocation);
        }
        let saved = self.save_revoked().await;
        for revocation in revocations {
            self.rooms.backend().publish_logout(&revocation.to_line()).await;
        }
        saved
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
        self.issue_in(account, None)
    }

    /// The same in the session of another token, whose family this is.
    ///
    /// # Errors
    ///
    /// Only if signing itself fails.
    pub fn issue_in(
        &self,
        account: &Account,
        family: Option<&str>,
    ) -> Result<IssuedToken, jsonwebtoken::errors::Error> {
        let (username, stamp, now) = (account.username.as_str(), &account.stamp(), unix_now());
        // Not among those that were just ended.
        let issued_at = now.max(self.revoked_tokens.earliest_issue(username));
        let token = self.tokens.issue_in(NewToken { username, stamp, family, issued_at, now })?;
        Ok(IssuedToken { token, lifetime: self.tokens.lifetime() })
    }

    /// Mints a token for any user.
    ///
    /// # Errors
    ///
    /// [`MintError`], also where the user would need an account and has none.
    pub fn mint(&self, request: &MintRequest) -> Result<IssuedToken, MintError> {
        let now = unix_now();
        let (token, lifetime) = self.tokens.mint(request, now)?;
        let claims = self.tokens.verify(token.expose_secret(), now)?;
        self.check_account(&claims)?;
        Ok(IssuedToken { token, lifetime })
    }

    /// What ends all tokens of a user that were issued until `now`, in whole seconds since the Unix epoch.
    pub fn end_issued_until(&self, username: &str, now: u64) -> Revocation {
        Revocation::of_issued_before(username, now + 1, self.longest_expiry(unix_now()))
    }

    /// When the last token expires that is valid at `now`, in whole seconds since the Unix epoch.
    pub fn longest_expiry(&self, now: u64) -> u64 {
        now + self.config.auth.max_token_lifetime.unwrap_or(LONGEST_TOKEN).as_secs()
    }

    /// How many logins are checked now or wait.
    pub fn pending_logins(&self) -> usize {
        self.logins.pending()
    }

    /// Whether a login as the user with this digest may be tried from `address`.
    fn check_lockout(&self, name: &str, address: IpAddr) -> Result<(), LoginError> {
        let checked = self.lockouts().check_login(name, address, Instant::now());
        checked.map_err(|wait| {
            self.metrics.record_limit(LimitKind::FailedLogins);
            self.metrics.record_login(LoginOutcome::LockedOut);
            LoginError::Locked(wait)
        })
    }

    /// Checks the password, which takes a quarter of a second, and counts how that ended.
    fn check_login(
        &self,
        username: &str,
        password: &SecretString,
        name: String,
        address: IpAddr,
    ) -> Result<IssuedToken, LoginError> {
        // A login that was queued before a lockout does not bypass it.
        self.check_lockout(&name, address)?;
        let account = self.users.find(username);
        let hash = match &account {
            Some(account) => account.hashed_password.clone(),
            None => dummy_hash(self.users.highest_cost()),
        };
        tracing::trace!("checking a password");
        let matches = has_hash(password, &hash);
        match account {
            Some(account) if matches && account.is_active => {
                self.record_auth_event(&AuthEvent::LoggedIn { name, address });
                tracing::info!(user = account.username, "logged in");
                let issued = self.issue(&account).map_err(LoginError::Internal);
                let failed = issued.as_ref().err().map(|_| LoginOutcome::Failed);
                self.metrics.record_login(failed.unwrap_or(LoginOutcome::Done));
                issued
            }
            account => {
                self.record_auth_event(&AuthEvent::LoginFailed { name, address });
                self.metrics.record_login(LoginOutcome::WrongCredentials);
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
