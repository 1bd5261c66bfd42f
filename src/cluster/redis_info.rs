//! What a Redis says of itself, for `doctor`.

use std::time::{Duration, SystemTime};

use redis::{AsyncConnectionConfig, RedisResult, aio::MultiplexedConnection};
use tokio::time::Instant;

use super::RedisEndpoint;

/// How long anything may take.
const TIMEOUT: Duration = Duration::from_secs(3);

/// How often the round trip is measured.
const PINGS: usize = 21;

/// One Redis.
#[derive(Debug)]
pub struct RedisInfo {
    /// Such as 7.0.15.
    pub version: String,
    /// `master`, or `slave`.
    pub role: String,
    /// Bytes of memory that it may use; 0 is no limit.
    pub most_memory: u64,
    /// What it evicts when it has used them.
    pub policy: String,
    /// The median round trip time.
    pub latency: Duration,
    /// The difference between its clock and this machine's, in either direction.
    pub clock_off: Duration,
}

impl RedisEndpoint {
    /// Asks the Redis about itself.
    ///
    /// # Errors
    ///
    /// Those of the connection.
    pub async fn info(&mut self) -> RedisResult<RedisInfo> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(TIMEOUT))
            .set_response_timeout(Some(TIMEOUT));
        let client = self.client().await?;
        let mut engine = client.get_multiplexed_async_connection_with_config(&config).await?;
        let info: String = redis::cmd("INFO").query_async(&mut engine).await?;
        let field = |name: &str| {
            let mut lines = info.lines().filter_map(|line| line.split_once(':'));
            lines.find(|(field, _)| *field == name).map(|(_, value)| value.to_owned())
        };
        let text = |name| field(name).unwrap_or_default();
        Ok(RedisInfo {
            version: text("redis_version"),
            role: text("role"),
            most_memory: text("maxmemory").parse().unwrap_or_default(),
            policy: text("maxmemory_policy"),
            latency: latency(&mut engine).await?,
            clock_off: clock_offset(&mut engine).await?,
        })
    }
}

async fn latency(engine: &mut MultiplexedConnection) -> RedisResult<Duration> {
    let mut round_trips = Vec::new();
    for _ in 0..PINGS {
        let began = Instant::now();
        redis::cmd("PING").query_async::<()>(engine).await?;
        round_trips.push(began.elapsed());
    }
    round_trips.sort();
    Ok(round_trips.get(PINGS / 2).copied().unwrap_or_default())
}

async fn clock_offset(engine: &mut MultiplexedConnection) -> RedisResult<Duration> {
    let (seconds, micros): (u64, u64) = redis::cmd("TIME").query_async(engine).await?;
    let theirs = Duration::from_secs(seconds) + Duration::from_micros(micros);
    let ours = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    Ok(ours.abs_diff(theirs))
}
