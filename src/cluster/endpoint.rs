//! Where a Redis is: at one address, at the one that sentinels name, or on a node of a Redis Cluster.

use std::time::Duration;

use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ErrorKind, RedisError,
    RedisResult, TlsCertificates, sentinel::SentinelClient,
};

use super::redis_cluster::{ClusterEndpoint, NodeAddress};

/// How long a Redis may take to say whether it belongs to a Redis Cluster. Its callers wait no longer than this themselves, and a
/// TLS handshake with a busy machine takes its time.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How to reach one Redis.
pub struct RedisEndpoint {
    location: Location,
    /// Which certificates to trust, other than those that the system trusts.
    certificates: Option<TlsCertificates>,
    /// The user that the server logs in as.
    user: String,
}

/// The user of Redis that needs no name.
const DEFAULT_USER: &str = "default";

enum Location {
    /// At one address.
    Single(SingleEndpoint),
    /// At the address that sentinels name.
    Sentinels(SentinelClient),
    /// On the node of a Redis Cluster that serves one slot.
    Cluster(ClusterEndpoint),
}

struct SingleEndpoint {
    client: Client,
    /// The slot of the keys, in case this turns out to be a node of a Redis Cluster.
    slot: u16,
    /// Whether it is known that it is none.
    is_alone: bool,
}

impl RedisEndpoint {
    /// At one address, or, where that is a node of a Redis Cluster, on the node that serves `slot`.
    pub(super) fn single(client: Client, certificates: Option<TlsCertificates>, slot: u16) -> Self {
        let user = user_of(client.get_connection_info());
        let single = SingleEndpoint { client, slot, is_alone: false };
        Self { location: Location::Single(single), certificates, user }
    }

    /// At the address that sentinels name, which `user` logs in to.
    pub(super) fn sentinels(
        client: SentinelClient,
        certificates: Option<TlsCertificates>,
        user: Option<&str>,
    ) -> Self {
        let user = user.unwrap_or(DEFAULT_USER).to_owned();
        Self { location: Location::Sentinels(client), certificates, user }
    }

    /// On the node of a Redis Cluster, one of `seeds` or one that they name, that serves `slot`. A user and a password, and
    /// whether TLS is used, are those of `login`.
    pub(super) fn cluster(
        login: ConnectionInfo,
        certificates: Option<TlsCertificates>,
        slot: u16,
        seeds: impl IntoIterator<Item = NodeAddress>,
    ) -> Self {
        let user = user_of(&login);
        let endpoint = ClusterEndpoint::new(login, certificates.clone(), slot, seeds);
        Self { location: Location::Cluster(endpoint), certificates, user }
    }

    /// The user that the server logs in as.
    pub fn user(&self) -> &str {
        &self.user
    }

    pub(super) fn certificates(&self) -> Option<&TlsCertificates> {
        self.certificates.as_ref()
    }

    /// A client for the address that counts now.
    ///
    /// # Errors
    ///
    /// Those of the sentinels or of the nodes, or that none of them knows.
    pub(super) async fn client(&mut self) -> RedisResult<Client> {
        if let Location::Single(single) = &mut self.location
            && let Some(cluster) = single.detect_cluster(self.certificates.as_ref()).await?
        {
            self.location = Location::Cluster(cluster);
        }
        match &mut self.location {
            Location::Single(single) => Ok(single.client.clone()),
            Location::Sentinels(sentinels) => sentinels.async_get_client().await,
            Location::Cluster(cluster) => cluster.client().await,
        }
    }

    /// Takes notice of an error of a connection: a node of a Redis Cluster may have said where the slot has gone.
    pub(super) fn follow(&mut self, error: &RedisError) {
        match &mut self.location {
            Location::Cluster(cluster) => cluster.follow(error),
            Location::Single(_) | Location::Sentinels(_) => {}
        }
    }
}

impl SingleEndpoint {
    /// The Redis Cluster that this Redis belongs to, if any.
    async fn detect_cluster(
        &mut self,
        certificates: Option<&TlsCertificates>,
    ) -> RedisResult<Option<ClusterEndpoint>> {
        let info = self.client.get_connection_info();
        let Some(seed) = address_of(info.addr()).filter(|_| !self.is_alone) else {
            return Ok(None);
        };
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(TIMEOUT))
            .set_response_timeout(Some(TIMEOUT));
        let mut connection =
            self.client.get_multiplexed_async_connection_with_config(&config).await?;
        let about = redis::cmd("INFO").arg("cluster").query_async(&mut connection).await;
        let about: String = match about {
            Ok(about) => about,
            // The user may not ask. What needs it says so.
            Err(error) if is_refusal(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        if about.lines().any(|line| line == "cluster_enabled:1") {
            let (login, certificates) = (info.clone(), certificates.cloned());
            return Ok(Some(ClusterEndpoint::new(login, certificates, self.slot, [seed])));
        }
        self.is_alone = true;
        Ok(None)
    }
}

fn user_of(login: &ConnectionInfo) -> String {
    login.redis_settings().username().unwrap_or(DEFAULT_USER).to_owned()
}

fn is_refusal(error: &RedisError) -> bool {
    use redis::ServerErrorKind::{NoPerm, ResponseError};
    matches!(error.kind(), ErrorKind::Server(NoPerm | ResponseError))
}

/// Host and port, where it has any.
pub(super) fn address_of(address: &ConnectionAddr) -> Option<NodeAddress> {
    let (ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. }) = address
    else {
        return None;
    };
    Some((host.clone(), *port))
}
