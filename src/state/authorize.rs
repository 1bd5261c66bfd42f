//! Authorizes: which account a token stands for, and who may enter a room.

use std::{net::IpAddr, time::Duration};

use tokio::time::Instant;

use super::AppStateInner;
use crate::{
    auth::{
        access_token::{Claims, InvalidToken},
        resume_token::ResumeToken,
        users::Account,
    },
    clock::unix_now,
    delivery::{ClientQueue, DisconnectReason},
    limits::AuthEvent,
    metrics::Limit,
    moderation::EntryDenied,
    protocol::CloseReason,
    session::{AuthError, Authorized, Credentials},
};

impl AppStateInner {
    /// Who stands behind a token.
    ///
    /// # Errors
    ///
    /// [`Refusal::BadToken`] and [`Refusal::NoSuchUser`].
    pub fn identify(&self, token: &str) -> Result<(Account, Claims), AuthError> {
        let claims =
            self.tokens.verify(token, unix_now()).map_err(|InvalidToken| AuthError::BadToken)?;
        self.check_account(&claims).map(|account| (account, claims))
    }

    /// Why nobody may enter `room` at all, whoever it is.
    pub fn check_room_open(&self, room: &str) -> Option<CloseReason> {
        if self.is_closing() {
            return Some(CloseReason::Draining);
        }
        let allowed = &self.settings().allowed_rooms;
        (!allowed.is_empty() && !allowed.iter().any(|allowed| allowed == room))
            .then_some(CloseReason::RoomNotAllowed)
    }

    /// Lets somebody in who waits at the door of a room, from `address`.
    ///
    /// # Errors
    ///
    /// [`Refusal`].
    pub fn authorize(
        &self,
        claim: Credentials<'_>,
        address: IpAddr,
        outbox: &ClientQueue,
    ) -> Result<Authorized, AuthError> {
        match claim {
            Credentials::Guest => Ok(self.authorize_guest()),
            Credentials::Token(token) => self.authorize_user(token, address, outbox),
            Credentials::ResumeToken(ticket) => self.authorize_resume(ticket, outbox),
        }
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
        outbox: &ClientQueue,
    ) -> Result<Authorized, AuthError> {
        let now = unix_now();
        let claims = self.tokens.verify(token, now).map_err(|InvalidToken| {
            if self.lockouts().is_blocked(address, Instant::now()) {
                self.metrics.limited(Limit::BadTokens);
                return AuthError::Blocked;
            }
            self.record_auth_event(&AuthEvent::TokenRefused { address });
            AuthError::BadToken
        })?;
        self.authorize_claims(claims, now, outbox)
    }

    /// Whoever was here before comes in on what he came in with then, if that still counts.
    pub(super) fn authorize_resume(
        &self,
        ticket: &ResumeToken,
        outbox: &ClientQueue,
    ) -> Result<Authorized, AuthError> {
        let ResumeToken { room, client_id, username, since, .. } = ticket;
        if self.moderation_rules.has_ended(room, username, client_id, *since)
            || self.moderation_rules.check_entry(room, username, client_id, unix_now())
                == Some(EntryDenied::Banned)
        {
            return Err(AuthError::Removed);
        }
        let Some(claims) = &ticket.claims else {
            if !self.config.allow_anonymous || self.users.find(&ticket.username).is_some() {
                return Err(AuthError::NoSuchUser);
            }
            let username = ticket.username.as_str().into();
            return Ok(Authorized { username, expires_in: None, claims: None, session: None });
        };
        let now = unix_now();
        if self.config.enforce_token_expiry && now >= claims.expires_at {
            return Err(AuthError::BadToken);
        }
        self.authorize_claims(claims.clone(), now, outbox)
    }

    fn authorize_claims(
        &self,
        claims: Claims,
        now: u64,
        outbox: &ClientQueue,
    ) -> Result<Authorized, AuthError> {
        let grant = self.token_sessions.register(&claims, outbox.clone());
        let account = self.check_account(&claims)?;
        Ok(Authorized {
            username: account.username.into(),
            expires_in: Some(Duration::from_secs(claims.expires_at.saturating_sub(now))),
            claims: Some(claims),
            session: Some(grant),
        })
    }

    /// Whose a token is that was signed well: the one place that says so, for REST and for sockets.
    fn check_account(&self, claims: &Claims) -> Result<Account, AuthError> {
        if self.revoked_tokens.contains(claims) {
            return Err(AuthError::BadToken);
        }
        let account = self.users.active(&claims.username).ok_or(AuthError::NoSuchUser)?;
        if claims.stamp.as_ref().is_some_and(|stamp| *stamp != account.stamp()) {
            return Err(AuthError::BadToken);
        }
        Ok(account)
    }

    /// Why sockets end that stand on these claims, where a new users file ends them.
    pub(super) fn revocation_reason(&self, claims: &Claims) -> Option<DisconnectReason> {
        match self.check_account(claims) {
            Ok(_) => None,
            Err(AuthError::NoSuchUser) => Some(DisconnectReason::AccountGone),
            Err(AuthError::BadToken | AuthError::Blocked | AuthError::Removed) => {
                Some(DisconnectReason::PasswordChanged)
            }
        }
    }
}
