//! TURN credentials and the list of ICE servers, and the task that probes the TURN servers.

use std::{sync::atomic::Ordering, time::Duration};

use secrecy::ExposeSecret;
use tokio::time::{Instant, sleep, timeout};

use super::{AppState, AppStateInner};
use crate::{
    clock::{ClockWatch, unix_now, unix_now_ms},
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

impl AppState {
    /// Sends new TURN credentials to members after the wall clock was set, for as long as it is polled: the expiry of the
    /// old ones was counted by the old time.
    pub async fn run_clock_watch(self) {
        let mut watch = ClockWatch::new(unix_now_ms(), Instant::now());
        loop {
            sleep(self.config.intervals.clock_poll).await;
            let Some(seconds) = watch.take_jump(unix_now_ms(), Instant::now()) else { continue };
            tracing::warn!(seconds, "wall clock was set; members get new TURN credentials");
            if !self.settings().ice.turn.secret.expose_secret().is_empty() {
                self.replace_ice_servers();
            }
        }
    }
}

impl AppStateInner {
    /// Makes members that opted in to it receive the STUN and TURN servers anew at their next deadline, and probes them.
    pub(super) fn replace_ice_servers(&self) {
        self.ice_version.fetch_add(1, Ordering::Relaxed);
        self.ice_replaced.notify_one();
    }

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
