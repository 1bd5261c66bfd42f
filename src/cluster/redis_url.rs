//! The entries of `REDIS_URL`.

use redis::{
    Client, ConnectionInfo, ErrorKind, IntoConnectionInfo, RedisResult, TlsCertificates, TlsMode,
    io::tcp::TcpSettings,
    sentinel::{SentinelClientBuilder, SentinelServerType},
};
use secrecy::{ExposeSecret, SecretString};

use super::{RedisEndpoint, endpoint::address_of, keys::ShardKeys};

/// The end of the scheme in a URL of sentinels.
const SENTINELS: &str = "+sentinel://";

/// The same for the nodes of a Redis Cluster.
const NODES: &str = "+cluster://";

/// The port of sentinels, where the URL names none.
const SENTINEL_PORT: u16 = 26379;

/// The schemes, with TLS and without it.
const SCHEMES: [&str; 4] = ["redis", "rediss", "valkey", "valkeys"];

/// Which entry is not accepted, and why. Nothing of the entry is repeated: any part of it may be a part of a password.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("entry {entry} {problem}")]
pub struct RedisUrlError {
    /// From 1.
    pub entry: usize,
    /// What is wrong with it.
    pub problem: RedisUrlProblem,
}

/// Why an entry is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedisUrlProblem {
    /// It is no URL of a Redis. A comma in a password makes two entries of one.
    #[error("does not begin with redis:// or rediss:// (a comma within a password is written %2C)")]
    Scheme,
    /// The end of the password is not where its writer sees it.
    #[error(
        "has a user or a password with a sign that separates the parts of a URL; percent-encode the password: %40 for @, \
         %2F for /, %23 for #, %3F for ?"
    )]
    Credentials,
    /// `#insecure`, which other programs take for a connection whose certificate is not verified.
    #[error(
        "ends with #insecure or another fragment: certificates are always verified; REDIS_CA_FILE names the authority that \
         signed them"
    )]
    Fragment,
    /// Sentinels watch several.
    #[error("names no service that the sentinels watch: /service at its end is missing")]
    Service,
    /// Its host, its port or the number of its database.
    #[error("has a host, a port or a database number that is none")]
    Address,
}

/// Parses the URLs of `REDIS_URL`: `redis[s]://[user:password@]host[:port][/number]`, or for a Redis that sentinels watch
/// `redis[s]+sentinel://[user:password@]host[:port][;host[:port]]…/service`, with user and password of the Redis; for a
/// Redis Cluster `redis[s]+cluster://[user:password@]host[:port][;host[:port]]…`, with some of its nodes.
/// `authority` is the certificate authority to trust (PEM); without it, those that the system trusts.
///
/// # Errors
///
/// [`RedisUrlError`]. A certificate that is none counts as the address of the entry that uses it.
pub fn parse_endpoints(
    urls: &[SecretString],
    authority: Option<&[u8]>,
) -> Result<Vec<RedisEndpoint>, RedisUrlError> {
    let endpoint = |(number, url): (usize, &SecretString)| {
        let parsed = parse_endpoint(number, url.expose_secret(), authority);
        parsed.map_err(|problem| RedisUrlError { entry: number + 1, problem })
    };
    urls.iter().enumerate().map(endpoint).collect()
}

fn parse_endpoint(
    shard: usize,
    url: &str,
    authority: Option<&[u8]>,
) -> Result<RedisEndpoint, RedisUrlProblem> {
    check_credentials(url)?;
    if url.contains('#') {
        return Err(RedisUrlProblem::Fragment);
    }
    let scheme = url.split_once("://").ok_or(RedisUrlProblem::Scheme)?.0;
    if !SCHEMES.contains(&scheme.trim_end_matches("+sentinel").trim_end_matches("+cluster")) {
        return Err(RedisUrlProblem::Scheme);
    }
    let slot = ShardKeys::new(shard).slot();
    let certificates = authority
        .filter(|_| has_tls(scheme))
        .map(|pem| TlsCertificates { client_tls: None, root_cert: Some(pem.to_vec()) });
    let parsed = match (url.split_once(SENTINELS), url.split_once(NODES)) {
        (Some((scheme, rest)), _) => {
            let (hosts, service) = rest.rsplit_once('/').unwrap_or((rest, ""));
            if service.is_empty() {
                return Err(RedisUrlProblem::Service);
            }
            sentinel_endpoint(scheme, hosts, service, certificates)
        }
        (None, Some((scheme, rest))) => cluster_endpoint(scheme, rest, certificates, slot),
        (None, None) => single_endpoint(url, certificates, slot),
    };
    parsed.map_err(|_| RedisUrlProblem::Address)
}

/// A sign that ends the credentials must not be within them: the rest of the password would be taken for a host, and be
/// looked up. No other part of a URL may have an `@`.
fn check_credentials(url: &str) -> Result<(), RedisUrlProblem> {
    let credentials = url.split_once("://").and_then(|(_, rest)| rest.rsplit_once('@'));
    let is_split =
        credentials.is_some_and(|(credentials, _)| credentials.contains(['@', '/', '#', '?']));
    if is_split { Err(RedisUrlProblem::Credentials) } else { Ok(()) }
}

fn has_tls(scheme: &str) -> bool {
    scheme.starts_with("rediss") || scheme.starts_with("valkeys")
}

/// Without delay, for a person waits for each message.
fn tcp_settings() -> TcpSettings {
    TcpSettings::default().set_nodelay(true)
}

fn single_endpoint(
    url: &str,
    certificates: Option<TlsCertificates>,
    slot: u16,
) -> RedisResult<RedisEndpoint> {
    let info = url.into_connection_info()?.set_tcp_settings(tcp_settings());
    let client = match certificates.clone() {
        Some(certificates) => Client::build_with_tls(info, certificates)?,
        None => Client::open(info)?,
    };
    Ok(RedisEndpoint::single(client, certificates, slot))
}

fn cluster_endpoint(
    scheme: &str,
    rest: &str,
    certificates: Option<TlsCertificates>,
    slot: u16,
) -> RedisResult<RedisEndpoint> {
    let (credentials, nodes) = rest.rsplit_once('@').unwrap_or(("", rest));
    let login = format!("{scheme}://{credentials}@localhost").into_connection_info()?;
    let login = login.set_tcp_settings(tcp_settings());
    let address = |host: &str| {
        let info = format!("{scheme}://{host}").into_connection_info()?;
        let is_numbered = info.redis_settings().db() != 0;
        let address = address_of(info.addr()).filter(|_| !is_numbered);
        address.ok_or_else(|| (ErrorKind::InvalidClientConfig, "no address").into())
    };
    let nodes = nodes.split(';').map(address).collect::<RedisResult<Vec<_>>>()?;
    Ok(RedisEndpoint::cluster(login, certificates, slot, nodes))
}

fn sentinel_endpoint(
    scheme: &str,
    rest: &str,
    service: &str,
    certificates: Option<TlsCertificates>,
) -> RedisResult<RedisEndpoint> {
    let (credentials, sentinels) = rest.rsplit_once('@').unwrap_or(("", rest));
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
    let login = (!credentials.is_empty()).then(|| info(&format!("{credentials}@localhost")));
    let login = login.transpose()?;
    let settings = login.as_ref().map(ConnectionInfo::redis_settings);
    let user = settings.and_then(|settings| settings.username());
    if let Some(settings) = settings {
        if let Some(username) = user {
            builder = builder.set_client_to_redis_username(username);
        }
        if let Some(password) = settings.password() {
            builder = builder.set_client_to_redis_password(password);
        }
    }
    if has_tls(scheme) {
        builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure);
        if let Some(certificates) = &certificates {
            builder = builder
                .set_client_to_sentinel_certificates(certificates.clone())
                .set_client_to_redis_certificates(certificates.clone());
        }
    }
    Ok(RedisEndpoint::sentinels(builder.build()?, certificates, user))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(url: &str) -> Option<RedisUrlProblem> {
        parse_endpoint(0, url, None).err()
    }

    #[test]
    fn each_form_of_a_url_is_accepted() {
        for good in [
            "redis://a",
            "redis://:pass@a:6379/5",
            "rediss://user:p%40ss%2Fw%23rd@a",
            "redis://:semi;colon%2Cplus+100%@a?protocol=resp3",
            "valkey://[::1]:6379",
            "redis+cluster://a",
            "rediss+cluster://u:p%40@a:7000;[::1]:7001;b",
            "redis+sentinel://a/den",
            "rediss+sentinel://u:p%40@a:1;[::1];b:26379/den",
        ] {
            assert_eq!(problem(good), None, "{good}");
        }
    }

    #[test]
    fn a_password_that_is_not_percent_encoded_is_refused() {
        for wrong in [
            "redis://:p@ss@a",
            "redis://:p@ss/w@a:6379",
            "redis://:p#ss@a",
            "redis://user:1/2@a:6379/0",
            "redis://user:6379?x@a",
            "redis+sentinel://:p@ss@a;b/den",
            "redis+sentinel://:p/w@a;b/den",
        ] {
            assert_eq!(problem(wrong), Some(RedisUrlProblem::Credentials), "{wrong}");
        }
    }

    #[test]
    fn other_faults_are_told_apart() {
        use RedisUrlProblem::{Address, Fragment, Scheme, Service};
        for (wrong, why) in [
            ("localhost:6379", Scheme),
            ("http://a", Scheme),
            ("ss@host:6379", Scheme),
            ("http+sentinel://a/den", Scheme),
            ("redis://a/name", Address),
            ("redis://a:port", Address),
            ("redis://", Address),
            ("redis://:pa", Address),
            ("redis+cluster://", Address),
            ("redis+cluster://a;b/5", Address),
            ("redis+cluster://a:port", Address),
            ("http+cluster://a", Scheme),
            ("rediss://a#insecure", Fragment),
            ("rediss+cluster://:p@a;b#insecure", Fragment),
            ("rediss+sentinel://a;b/den#x", Fragment),
            ("redis+sentinel:///den", Address),
            ("redis+sentinel://a;b", Service),
        ] {
            assert_eq!(problem(wrong), Some(why), "{wrong}");
        }
    }

    #[test]
    fn an_error_names_the_entry_and_repeats_nothing_of_it() {
        let urls = ["redis://a", "redis://:hun#ter2@b"].map(SecretString::from);

        let error = parse_endpoints(&urls, None).err().unwrap();

        let text = error.to_string();
        assert!(text.starts_with("entry 2 ") && text.contains("%40 for @"), "{text}");
        assert!(!text.contains("ter2"), "{text}");
    }
}
