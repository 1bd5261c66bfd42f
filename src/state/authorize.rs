//! Authorizes: which account a token stands for, and who may enter a room.

use std::{net::IpAddr, time::Duration};

use tokio::time::Instant;

use super::AppStateInner;
use crate::{
    auth::{
        access_token::Claims, claims::check_foreign_name, resume_token::ResumeToken,
        token_rejection::TokenRejection, users::Account,
    },
    clock::unix_now,
    delivery::{ClientQueue, DisconnectReason},
    limits::{AuthEvent, RefusalKind, address_key, count_refusal},
    memory::MemoryAccount,
    metrics::LimitKind,
    moderation::EntryDenied,
    protocol::CloseReason,
    session::{AuthError, Authorized, Credentials},
};

impl AppStateInner {
    /// The account and the claims of an access token that a client at `address` has sent. A refusal is logged.
    ///
    /// # Errors
    ///
    /// [`AuthError::BadToken`] and [`AuthError::NoSuchUser`].
    pub fn identify(&self, token: &str, address: IpAddr) -> Result<(Account, Claims), AuthError> {
        let identified = self.tokens.verify(token, unix_now());
        let identified = identified
            .and_then(|claims| self.check_account(&claims).map(|account| (account, claims)));
        identified.map_err(|rejection| self.refuse_token(&rejection, address))
    }

    /// Logs why a token is refused, and returns what its client is told.
    fn refuse_token(&self, rejection: &TokenRejection, address: IpAddr) -> AuthError {
        let kind = RefusalKind::Token(rejection.kind());
        if let Some(count) = count_refusal(kind, address, Instant::now()) {
            tracing::warn!(%address, reason = %rejection, count, "token refused");
        }
        AuthError::from(rejection)
    }

    /// Why `room` is closed to every client: the server stops, or `ALLOWED_ROOMS` does not list it.
    pub fn check_room_open(&self, room: &str) -> Option<CloseReason> {
        if self.is_closing() {
            return Some(CloseReason::Draining);
        }
        let allowed = &self.settings().rooms.allowed;
        (!allowed.is_empty() && !allowed.iter().any(|allowed| allowed == room))
            .then_some(CloseReason::RoomNotAllowed)
    }

    /// Authorizes a client at `address` to enter a room with `credentials`. `queue` is disconnected when they are
    /// revoked.
    ///
    /// # Errors
    ///
    /// [`AuthError`].
    pub fn authorize(
        &self,
        credentials: Credentials<'_>,
        address: IpAddr,
        queue: &ClientQueue,
    ) -> Result<Authorized, AuthError> {
        let authorized = match credentials {
            Credentials::Guest => self.authorize_guest(),
            Credentials::Token(token) => self.authorize_user(token, address, queue)?,
            Credentials::ResumeToken(token) => self.authorize_resume(token, queue)?,
        };
        queue.assign_account(&self.memory, &memory_account(&authorized, address));
        Ok(authorized)
    }

    /// The same for a membership that was restored or has come from another node: its client has no connection here.
    pub(super) fn authorize_detached(
        &self,
        resume_token: &ResumeToken,
        queue: &ClientQueue,
    ) -> Result<Authorized, AuthError> {
        let authorized = self.authorize_resume(resume_token, queue)?;
        queue.assign_account(&self.memory, &MemoryAccount::User(authorized.username.clone()));
        Ok(authorized)
    }

    fn authorize_guest(&self) -> Authorized {
        let username = loop {
            let id = uuid::Uuid::new_v4().simple().to_string();
            let name = format!("guest-{}", id.get(..6).unwrap_or_default());
            if self.users.find(&name).is_none() {
                break name;
            }
        };
        Authorized { username: username.into(), expires_in: None, claims: None, session: None }
    }

    fn authorize_user(
        &self,
        token: &str,
        address: IpAddr,
        queue: &ClientQueue,
    ) -> Result<Authorized, AuthError> {
        let now = unix_now();
        let claims = self.tokens.verify(token, now).map_err(|rejection| {
            if self.lockouts().is_blocked(address, Instant::now()) {
                self.metrics.record_limit(LimitKind::BadTokens);
                return AuthError::Blocked;
            }
            self.record_auth_event(&AuthEvent::TokenRefused { address });
            self.refuse_token(&rejection, address)
        })?;
        self.authorize_claims(claims, now, queue)
            .map_err(|rejection| self.refuse_token(&rejection, address))
    }

    /// Authorizes a member to resume, with the access token that it joined with, where that is still valid.
    fn authorize_resume(
        &self,
        resume_token: &ResumeToken,
        queue: &ClientQueue,
    ) -> Result<Authorized, AuthError> {
        let ResumeToken { room, client_id, username, since, .. } = resume_token;
        if self.moderation_rules.has_ended(room, username, client_id, *since)
            || self.moderation_rules.check_entry(room, username, client_id, unix_now())
                == Some(EntryDenied::Banned)
        {
            return Err(AuthError::Removed);
        }
        let Some(claims) = &resume_token.claims else {
            if !self.config.auth.allow_anonymous
                || self.users.find(&resume_token.username).is_some()
            {
                return Err(AuthError::NoSuchUser);
            }
            let username = resume_token.username.as_str().into();
            return Ok(Authorized { username, expires_in: None, claims: None, session: None });
        };
        let now = unix_now();
        if self.config.auth.enforce_token_expiry && now >= claims.expires_at {
            return Err(AuthError::BadToken);
        }
        self.authorize_claims(claims.clone(), now, queue)
            .map_err(|rejection| AuthError::from(&rejection))
    }

    fn authorize_claims(
        &self,
        claims: Claims,
        now: u64,
        queue: &ClientQueue,
    ) -> Result<Authorized, TokenRejection> {
        let session = self.token_sessions.register(&claims, queue.clone());
        self.check_account(&claims)?;
        Ok(Authorized {
            username: claims.username.clone(),
            expires_in: Some(Duration::from_secs(claims.expires_at.saturating_sub(now))),
            claims: Some(claims),
            session: Some(session),
        })
    }

    /// The account of a token whose signature is valid: the one place that decides this, for REST and for sockets.
    pub(super) fn check_account(&self, claims: &Claims) -> Result<Account, TokenRejection> {
        let username = &claims.username;
        let is_account_required = self.config.tokens.users_required;
        let account = match self.users.find(username) {
            Some(_) if claims.is_from_issuer && !is_account_required => {
                return Err(TokenRejection::NameTaken(username.to_string()));
            }
            Some(account) => account,
            // A token with a stamp is ours, and its account is gone.
            None if is_account_required || claims.stamp.is_some() => {
                return Err(TokenRejection::UnknownUser(username.to_string()));
            }
            None => {
                check_foreign_name(username)?;
                Account::foreign(username.to_string())
            }
        };
        if !account.is_active {
            return Err(TokenRejection::DisabledUser(username.to_string()));
        }
        if self.revoked_tokens.contains(claims) {
            return Err(TokenRejection::LoggedOut);
        }
        if claims.stamp.as_ref().is_some_and(|stamp| *stamp != account.stamp()) {
            return Err(TokenRejection::PasswordChanged);
        }
        Ok(account)
    }

    /// Why the sessions of these claims end, where the accounts now in force no longer allow them.
    pub(super) fn revocation_reason(&self, claims: &Claims) -> Option<DisconnectReason> {
        let rejection = self.check_account(claims).err()?;
        match AuthError::from(&rejection) {
            AuthError::NoSuchUser => Some(DisconnectReason::AccountGone),
            AuthError::BadToken
            | AuthError::Blocked
            | AuthError::TooManyConnections
            | AuthError::Removed => Some(DisconnectReason::PasswordChanged),
        }
    }
}

/// The account whose share of the memory budget a client at `address` uses. All guests of one address are one account.
fn memory_account(authorized: &Authorized, address: IpAddr) -> MemoryAccount {
    if authorized.is_guest() {
        MemoryAccount::GuestsOf(address_key(address))
    } else {
        MemoryAccount::User(authorized.username.clone())
    }
}
