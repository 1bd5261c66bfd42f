//! `signaling-server healthcheck`: asks the server that the settings name whether it accepts clients, where there is no
//! `curl`, as in a container.

use std::{error::Error, time::Duration};

use reqwest::StatusCode;
use tokio::time::timeout;

use super::{block_on, read_settings};
use crate::{config::Environment, http_client::LocalServer};

/// How long the whole check may take. The time-out of Docker's health check is longer and says less.
const HEALTHCHECK_TIMEOUT: Duration = Duration::from_secs(3);

/// Why a server is not healthy.
#[derive(Debug, thiserror::Error)]
pub enum NotHealthy {
    /// It answered with another status than 200.
    #[error("{0} is not ready: it answered {1}")]
    NotReady(LocalServer, StatusCode),
    /// There was no connection, or no HTTP answer; with the cause.
    #[error("{0} cannot be reached: {1}")]
    Unreachable(LocalServer, String),
    /// It took too long.
    #[error("{0} did not answer within {timeout} s", timeout = HEALTHCHECK_TIMEOUT.as_secs())]
    TimedOut(LocalServer),
}

pub(super) fn run(environment: &Environment) -> Result<(), Box<dyn Error>> {
    let listen = read_settings(environment)?.startup.listen;
    let server = LocalServer::new(&listen.host, listen.port);
    Ok(block_on(check(server.with_proxy_protocol(listen.proxy_protocol)))??)
}

/// Requests `/health/ready` of `server`, for at most 3 s.
///
/// # Errors
///
/// [`NotHealthy`].
pub async fn check(server: LocalServer) -> Result<(), NotHealthy> {
    match timeout(HEALTHCHECK_TIMEOUT, server.get("/health/ready")).await {
        Ok(Ok(answer)) if answer.status() == StatusCode::OK => Ok(()),
        Ok(Ok(answer)) => Err(NotHealthy::NotReady(server, answer.status())),
        Ok(Err(cause)) => Err(NotHealthy::Unreachable(server, cause)),
        Err(_elapsed) => Err(NotHealthy::TimedOut(server)),
    }
}
