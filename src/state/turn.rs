//! TURN credentials and the list of ICE servers, and the task that probes the TURN servers.

use std::{sync::atomic::Ordering, time::Duration};

use secrecy::ExposeSecret;
use tokio::time::timeout;

use super::{AppState, AppStateInner};
use crate::{
    clock::unix_now,
    config::TurnSettings,
    protocol::IceServer,
    turn::{self, TurnCredentials},
};

/// Why TURN credentials cannot be issued.
#[derive(Debug)]
pub enum TurnError {
    /// `TURNSERVER_SECRET` is empty.
    NotConfigured,
    /// `TURNSERVER_URLS` is empty.
    NoUrls,
}

impl AppState {
    /// Probes the TURN servers at each interval, and at once when the settings name others, for as long as it is polled.
    pub async fn run_turn_probe(self) {
        let interval = self.config.ice.probe_interval;
        if interval.is_zero() {
            return;
        }
        loop {
            let settings = self.settings();
            let TurnSettings { secret, urls, ttl } = &settings.ice.turn;
            // Without a secret no credentials are issued, so there is nothing to probe with.
            let urls = if secret.expose_secret().is_empty() { &[] } else { urls.as_slice() };
            self.turn_health.probe(urls, secret, *ttl, self.config.listen.tls.is_some()).await;
            let _ = timeout(interval, self.ice_replaced.notified()).await;
        }
    }
}

impl AppStateInner {
    /// Issues TURN credentials for an account. Returns them, the URLs that they are for, and how long they are valid.
    ///
    /// # Errors
    ///
    /// [`TurnError`].
    pub fn turn_credentials(
        &self,
        username: &str,
    ) -> Result<(TurnCredentials, Vec<String>, Duration), TurnError> {
        let settings = self.settings();
        let turn = &settings.ice.turn;
        let credentials = mint_credentials(turn, username)?;
        self.metrics.record_turn_credentials();
        Ok((credentials, self.turn_health.healthy_first(&turn.urls), turn.ttl))
    }

    /// ICE servers: STUN, and TURN where `username` is an account. Returns them, and how long credentials are valid.
    pub fn ice_servers(&self, username: Option<&str>) -> (Vec<IceServer>, Duration) {
        let settings = self.settings();
        let ice = &settings.ice;
        let stun = &ice.stun_urls;
        let mut servers = Vec::new();
        if !stun.is_empty() {
            servers.push(IceServer { urls: stun.clone(), username: None, credential: None });
        }
        if let Some(Ok(turn)) = username.map(|username| mint_credentials(&ice.turn, username)) {
            self.metrics.record_turn_credentials();
            servers.push(IceServer {
                urls: self.turn_health.healthy_first(&ice.turn.urls),
                username: Some(turn.username),
                credential: Some(turn.credential),
            });
        }
        (servers, ice.turn.ttl)
    }

    /// Changes whenever the STUN and TURN servers are replaced.
    pub fn ice_version(&self) -> u64 {
        self.ice_version.load(Ordering::Relaxed)
    }
}

fn mint_credentials(turn: &TurnSettings, username: &str) -> Result<TurnCredentials, TurnError> {
    if turn.secret.expose_secret().is_empty() {
        return Err(TurnError::NotConfigured);
    }
    if turn.urls.is_empty() {
        return Err(TurnError::NoUrls);
    }
    Ok(turn::mint(&turn.secret, username, turn.ttl, unix_now()))
}
