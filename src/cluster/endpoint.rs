//! Where a Redis is: at one address, or at the one that sentinels name.

use redis::{Client, RedisResult, sentinel::SentinelClient};

/// How to reach one Redis.
pub enum RedisEndpoint {
    /// At one address.
    Single(Client),
    /// At the address that sentinels name.
    Sentinels(SentinelClient),
}

impl RedisEndpoint {
    /// A client for the address that counts now.
    ///
    /// # Errors
    ///
    /// Those of the sentinels, or that none of them knows.
    pub(super) async fn client(&mut self) -> RedisResult<Client> {
        match self {
            Self::Single(client) => Ok(client.clone()),
            Self::Sentinels(sentinels) => sentinels.async_get_client().await,
        }
    }
}
