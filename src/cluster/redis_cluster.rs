//! A Redis Cluster: which of its nodes serves the slot of a shard.

use std::{collections::VecDeque, time::Duration};

use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ErrorKind, RedisError,
    RedisResult, TlsCertificates, Value,
};

/// How long one node may take to say which node serves what, with a TLS handshake where there is one. The next one is asked
/// after it.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Host and port of a node.
pub type NodeAddress = (String, u16);

/// The node of a Redis Cluster that serves one slot, wherever that slot is now.
pub struct ClusterEndpoint {
    /// How to log in, with TLS or without it; the address counts for nothing.
    login: ConnectionInfo,
    certificates: Option<TlsCertificates>,
    slot: u16,
    /// The nodes that are known, in the order in which they are asked. Those of the URL always stay.
    nodes: VecDeque<NodeAddress>,
}

impl ClusterEndpoint {
    /// The node for `slot` of the cluster that `seeds` belong to. A user and a password, and whether TLS is used, are those
    /// of `login`.
    pub fn new(
        login: ConnectionInfo,
        certificates: Option<TlsCertificates>,
        slot: u16,
        seeds: impl IntoIterator<Item = NodeAddress>,
    ) -> Self {
        Self { login, certificates, slot, nodes: seeds.into_iter().collect() }
    }

    /// A client for the node that serves the slot, by the first node that answers.
    ///
    /// # Errors
    ///
    /// That of the last node that was asked.
    pub async fn client(&mut self) -> RedisResult<Client> {
        let mut failure = cluster_error("no node of the Redis Cluster is known");
        for _ in 0..self.nodes.len() {
            let Some(asked) = self.nodes.pop_front() else { break };
            // Before the answer: where this future is dropped meanwhile, another node is asked next time.
            self.nodes.push_back(asked.clone());
            match self.query_slots(&asked).await {
                Ok(answer) => {
                    let Some(owner) = self.learn(&answer, &asked) else {
                        failure = cluster_error(
                            "no node of the Redis Cluster serves the slot of these rooms",
                        );
                        continue;
                    };
                    return self.connect_to(&owner);
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// Asks the node next that a `MOVED` names.
    pub fn follow(&mut self, error: &RedisError) {
        let moved = error.kind() == ErrorKind::Server(redis::ServerErrorKind::Moved);
        let address =
            error.redirect_node().filter(|_| moved).and_then(|(node, _)| parse_address(node));
        if let Some(address) = address {
            self.ask_first(address);
        }
    }

    fn ask_first(&mut self, address: NodeAddress) {
        self.nodes.retain(|known| *known != address);
        self.nodes.push_front(address);
    }

    async fn query_slots(&self, node: &NodeAddress) -> RedisResult<Value> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(TIMEOUT))
            .set_response_timeout(Some(TIMEOUT));
        let client = self.connect_to(node)?;
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        redis::cmd("CLUSTER").arg("SLOTS").query_async(&mut connection).await
    }

    /// Notes the nodes that an answer names, and returns the one that serves the slot. That one is asked first from now on:
    /// it is the first to know where its slot goes.
    fn learn(&mut self, answer: &Value, asked: &NodeAddress) -> Option<NodeAddress> {
        let ranges = parse_slots(answer, &asked.0);
        for node in ranges.iter().flat_map(|range| &range.nodes) {
            if !self.nodes.contains(node) {
                self.nodes.push_back(node.clone());
            }
        }
        let range = ranges.iter().find(|range| (range.first..=range.last).contains(&self.slot))?;
        let owner = range.nodes.first()?.clone();
        self.ask_first(owner.clone());
        Some(owner)
    }

    fn connect_to(&self, (host, port): &NodeAddress) -> RedisResult<Client> {
        let (host, port) = (host.clone(), *port);
        let address = if let ConnectionAddr::TcpTls { .. } = self.login.addr() {
            ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
        } else {
            ConnectionAddr::Tcp(host, port)
        };
        let info = self.login.clone().set_addr(address);
        match &self.certificates {
            Some(certificates) => Client::build_with_tls(info, certificates.clone()),
            None => Client::open(info),
        }
    }
}

fn cluster_error(problem: &'static str) -> RedisError {
    (ErrorKind::ClusterConnectionNotFound, problem).into()
}

/// Slots, and the nodes that have them: the one that serves them first, then its replicas.
#[derive(Debug, PartialEq, Eq)]
struct SlotRange {
    first: u16,
    last: u16,
    nodes: Vec<NodeAddress>,
}

/// Reads the answer to `CLUSTER SLOTS` of the node that was asked at `host`. What cannot be read is left out.
fn parse_slots(answer: &Value, host: &str) -> Vec<SlotRange> {
    let Value::Array(ranges) = answer else { return Vec::new() };
    ranges.iter().filter_map(|range| parse_range(range, host)).collect()
}

fn parse_range(range: &Value, host: &str) -> Option<SlotRange> {
    let Value::Array(parts) = range else { return None };
    let [Value::Int(first), Value::Int(last), nodes @ ..] = &parts[..] else { return None };
    let node = |node: &Value| {
        let Value::Array(parts) = node else { return None };
        let [name, Value::Int(port), ..] = &parts[..] else { return None };
        let name = if let Value::BulkString(name) = name {
            str::from_utf8(name).ok()?
        } else if let Value::SimpleString(name) = name {
            name
        } else {
            // Unknown to the node that was asked: the address that it was asked at counts.
            ""
        };
        let name = if name.is_empty() || name == "?" { host } else { name };
        Some((name.to_owned(), u16::try_from(*port).ok()?))
    };
    let nodes: Vec<_> = nodes.iter().map_while(node).collect();
    Some(SlotRange { first: u16::try_from(*first).ok()?, last: u16::try_from(*last).ok()?, nodes })
}

/// `host:port`, where an IPv6 address may stand without brackets.
fn parse_address(text: &str) -> Option<NodeAddress> {
    let (host, port) = text.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    (!host.is_empty()).then_some(())?;
    Some((host.to_owned(), port.parse().ok()?))
}

/// The slot of a key with this hash tag.
///
/// Source: the Redis Cluster specification, "Key distribution model": CRC-16/XMODEM, modulo 16384.
pub fn slot_of(hash_tag: &str) -> u16 {
    let crc = hash_tag.bytes().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    });
    crc % 16_384
}

#[cfg(test)]
mod tests {
    use redis::IntoConnectionInfo;

    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        // The check value of CRC-16/XMODEM is 0x31C3.
        assert_eq!(slot_of("123456789"), 0x31C3);
        // As `CLUSTER KEYSLOT` answers.
        assert_eq!((slot_of("foo"), slot_of("sig2_0")), (12_182, 12_596));
    }

    fn node(host: Value, port: i64) -> Value {
        Value::Array(vec![host, Value::Int(port), Value::BulkString(b"id".to_vec())])
    }

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn range(first: i64, last: i64, nodes: Vec<Value>) -> Value {
        Value::Array([vec![Value::Int(first), Value::Int(last)], nodes].concat())
    }

    fn endpoint(slot: u16) -> ClusterEndpoint {
        let login = "redis://user:password@seed".into_connection_info().unwrap();
        ClusterEndpoint::new(login, None, slot, [("seed".to_owned(), 6379)])
    }

    #[test]
    fn the_owner_of_the_slot_is_asked_first_and_the_seeds_stay_known() {
        let answer = Value::Array(vec![
            range(0, 8_000, vec![node(bulk("a"), 1), node(bulk("b"), 2)]),
            range(8_001, 16_383, vec![node(bulk("c"), 3)]),
        ]);
        let mut endpoint = endpoint(12_596);

        let owner = endpoint.learn(&answer, &("seed".into(), 6379));

        assert_eq!(owner, Some(("c".into(), 3)));
        let known: Vec<_> = endpoint.nodes.iter().map(|(host, _)| host.as_str()).collect();
        assert_eq!(known, ["c", "seed", "a", "b"]);
    }

    #[test]
    fn a_node_without_an_address_is_the_one_that_was_asked() {
        for unknown in [Value::Nil, bulk(""), bulk("?")] {
            let answer = Value::Array(vec![range(0, 16_383, vec![node(unknown, 7)])]);
            assert_eq!(endpoint(0).learn(&answer, &("seed".into(), 1)), Some(("seed".into(), 7)));
        }
    }

    #[test]
    fn a_slot_that_no_node_serves_has_no_owner() {
        let answer = Value::Array(vec![range(0, 5, vec![node(bulk("a"), 1)])]);

        assert_eq!(endpoint(6).learn(&answer, &("seed".into(), 1)), None);
        assert_eq!(endpoint(6).learn(&Value::Nil, &("seed".into(), 1)), None);
    }

    #[test]
    fn addresses_of_redirections_may_be_ipv6() {
        assert_eq!(parse_address("10.0.0.1:7000"), Some(("10.0.0.1".into(), 7000)));
        assert_eq!(parse_address("::1:7000"), Some(("::1".into(), 7000)));
        assert_eq!(parse_address("[::1]:7000"), Some(("::1".into(), 7000)));
        assert_eq!(parse_address(":7000"), None);
    }
}
