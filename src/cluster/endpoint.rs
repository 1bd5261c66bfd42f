//! Where a Redis is: at one address, or at the one that sentinels name.

use redis::{
    Client, ConnectionInfo, ErrorKind, IntoConnectionInfo, RedisResult, TlsCertificates, TlsMode,
    io::tcp::TcpSettings,
    sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType},
};
use secrecy::{ExposeSecret, SecretString};

/// The end of the scheme in a URL of sentinels.
const SENTINELS: &str = "+sentinel://";

/// The port of sentinels, where the URL names none.
const SENTINEL_PORT: u16 = 26379;

/// How to reach one Redis.
pub enum RedisEndpoint {
    /// At one address.
    Single(Client),
    /// At the address that sentinels name.
    Sentinels(SentinelClient),
}

/// Parses the URLs of `REDIS_URL`: `redis[s]://[user:password@]host[:port][/number]`, or for a Redis that sentinels watch
/// `redis[s]+sentinel://[user:password@]host[:port][;host[:port]]…/service`, with user and password of the Redis.
/// `authority` is the certificate authority to trust (PEM); without it, those that the system trusts.
///
/// # Errors
///
/// A sentence about the URL that cannot be parsed, or about the certificate, without a password.
pub fn parse_endpoints(
    urls: &[SecretString],
    authority: Option<&[u8]>,
) -> Result<Vec<RedisEndpoint>, String> {
    let endpoint = |(number, url): (usize, &SecretString)| {
        let url = url.expose_secret();
        let certificates = authority
            .filter(|_| url.starts_with("rediss"))
            .map(|pem| TlsCertificates { client_tls: None, root_cert: Some(pem.to_vec()) });
        let parsed = match url.split_once(SENTINELS) {
            Some((scheme, rest)) => sentinel_endpoint(scheme, rest, certificates),
            None => single_endpoint(url, certificates),
        };
        parsed.map_err(|error| format!("entry {}: {:?}", number + 1, error.kind()))
    };
    urls.iter().enumerate().map(endpoint).collect()
}

/// Without delay, for a person waits for each message.
fn tcp_settings() -> TcpSettings {
    TcpSettings::default().set_nodelay(true)
}

fn single_endpoint(url: &str, certificates: Option<TlsCertificates>) -> RedisResult<RedisEndpoint> {
    let info = url.into_connection_info()?.set_tcp_settings(tcp_settings());
    let client = match certificates {
        Some(certificates) => Client::build_with_tls(info, certificates),
        None => Client::open(info),
    };
    client.map(RedisEndpoint::Single)
}

fn sentinel_endpoint(
    scheme: &str,
    rest: &str,
    certificates: Option<TlsCertificates>,
) -> RedisResult<RedisEndpoint> {
    let (credentials, rest) = rest.rsplit_once('@').unwrap_or(("", rest));
    let (sentinels, service) = rest.split_once('/').unwrap_or((rest, ""));
    if service.is_empty() {
        return Err((ErrorKind::InvalidClientConfig, "no service").into());
    }
    let info = |host: &str| -> RedisResult<ConnectionInfo> {
        format!("{scheme}://{host}").into_connection_info()
    };
    let addresses = sentinels.split(';').map(|host| {
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
        let host = if has_port { host.to_owned() } else { format!("{host}:{SENTINEL_PORT}") };
        info(&host).map(|info| info.addr().clone())
    });
    let addresses = addresses.collect::<RedisResult<Vec<_>>>()?;
    let mut builder = SentinelClientBuilder::new(addresses, service, SentinelServerType::Master)?
        .set_client_to_redis_tcp_settings(tcp_settings());
    if !credentials.is_empty() {
        let info = info(&format!("{credentials}@localhost"))?;
        let settings = info.redis_settings();
        if let Some(username) = settings.username() {
            builder = builder.set_client_to_redis_username(username);
        }
        if let Some(password) = settings.password() {
            builder = builder.set_client_to_redis_password(password);
        }
    }
    if scheme == "rediss" {
        builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure);
        if let Some(certificates) = certificates {
            builder = builder
                .set_client_to_sentinel_certificates(certificates.clone())
                .set_client_to_redis_certificates(certificates);
        }
    }
    builder.build().map(RedisEndpoint::Sentinels)
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
