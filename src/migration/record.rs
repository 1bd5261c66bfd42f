//! What a membership is called in the whole cluster, and how Redis stores it.

use std::{fmt, str::FromStr, sync::Arc};

use crate::peer::Peer;

/// Numbers the changes of the rooms of one Redis in their order: joins and moves.
pub type Epoch = u64;

/// One membership in the whole cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionId {
    /// The node that the member is on.
    pub node: Arc<str>,
    /// Tells it from every other membership that was ever on that node.
    pub key: u64,
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:016x}", self.node, self.key)
    }
}

/// A stored membership that cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a member record: {0:?}")]
pub struct ParseRecordError(String);

impl FromStr for ConnectionId {
    type Err = ParseRecordError;

    fn from_str(text: &str) -> Result<Self, ParseRecordError> {
        let parts = text.split_once('.');
        let connection = parts.and_then(|(node, key)| {
            Some(Self { node: node.into(), key: u64::from_str_radix(key, 16).ok()? })
        });
        connection.ok_or_else(|| ParseRecordError(text.to_owned()))
    }
}

/// A member, its connection, and when it joined.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MemberRecord {
    /// The member.
    pub peer: Peer,
    /// Its connection.
    pub connection: ConnectionId,
    /// Higher for a member that joined later.
    pub join_order: Epoch,
}

impl MemberRecord {
    /// As Redis stores it under the client id: `<node>.<key> <join order> <username>`, and a display name in a line after it.
    pub fn to_record(&self) -> String {
        let Peer { username, name, .. } = &self.peer;
        let mut record = format!("{} {} {username}", self.connection, self.join_order);
        if let Some(name) = name {
            // Neither has control characters.
            record.push('\n');
            record.push_str(name);
        }
        record
    }

    /// Reads what [`to_record`](Self::to_record) writes.
    ///
    /// # Errors
    ///
    /// [`ParseRecordError`] where `record` is none.
    pub fn parse(client_id: &str, record: &str) -> Result<Self, ParseRecordError> {
        let mut parts = record.splitn(3, ' ');
        let mut next = || parts.next().ok_or_else(|| ParseRecordError(record.to_owned()));
        let (connection, join_order, username) = (next()?, next()?, next()?);
        let join_order = join_order.parse().map_err(|_| ParseRecordError(record.to_owned()))?;
        let (username, name) = match username.split_once('\n') {
            Some((username, name)) => (username, Some(name.into())),
            None => (username, None),
        };
        let peer = Peer { client_id: client_id.into(), username: username.into(), name };
        Ok(Self { peer, connection: connection.parse()?, join_order })
    }
}

/// For a connection that no other has had before; never 0, which stands for none.
pub fn random_key() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().1 | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_written_and_read_the_same() {
        let username = "alice of the hill";
        for (name, stored) in [
            (None, "n1.000000000000feed 7 alice of the hill"),
            (Some("Alice B."), "n1.000000000000feed 7 alice of the hill\nAlice B."),
        ] {
            let name = name.map(Into::into);
            let peer = Peer { client_id: "alice-1".into(), username: username.into(), name };
            let connection = ConnectionId { node: "n1".into(), key: 0xfeed };
            let record = MemberRecord { peer, connection, join_order: 7 };

            assert_eq!(record.to_record(), stored);
            assert_eq!(MemberRecord::parse("alice-1", stored), Ok(record));
        }
        for wrong in ["", "n1", "n1.x 7 alice", "n1.1 x alice", "n1.1 7"] {
            assert!(MemberRecord::parse("alice-1", wrong).is_err(), "{wrong}");
        }
    }
}
