//! Why a Redis that answers refuses a command.

/// A command that a server needs, and that Redis refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// In small letters, as an access rule names it: `xread`, `script|load`.
    pub command: String,
    /// Why.
    pub reason: RefusalReason,
}

/// Why a command is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RefusalReason {
    /// The user lacks the permission to run it.
    Permission,
    /// The user may not use the keys of this server.
    KeyPermission,
    /// It is renamed, or disabled, or this is no Redis.
    Unknown,
    /// `maxmemory` is reached.
    Memory,
    /// Fewer replicas are connected than `min-replicas-to-write` asks for.
    Replicas,
    /// This is a replica.
    ReadOnly,
    /// The slot of the keys is on another node of a Redis Cluster, or on the way there, or nowhere.
    Slot,
    /// Redis could not write its snapshot to the disk.
    Disk,
    /// It still reads its snapshot.
    Loading,
    /// Something else, in the words of Redis.
    Other(String),
}

impl Refusal {
    /// What the `error` that Redis has answered to `command` means.
    pub fn new(command: &str, error: &str) -> Self {
        Self { command: command.to_ascii_lowercase(), reason: RefusalReason::of(error) }
    }
}

impl RefusalReason {
    /// By the code in front, and in scripts, where older versions give none, by the words.
    fn of(error: &str) -> Self {
        let lower = error.to_ascii_lowercase();
        let says = |words: &[&str]| words.iter().any(|word| lower.contains(word));
        if says(&["access one of the keys", "access at least one of the keys", "access a key"]) {
            Self::KeyPermission
        } else if says(&["noperm", "can't run this command", "no permissions to run"]) {
            Self::Permission
        } else if says(&["unknown command", "unknown redis command", "unknown subcommand"]) {
            Self::Unknown
        } else if says(&["oom command not allowed", "oom "]) {
            Self::Memory
        } else if says(&["noreplicas"]) {
            Self::Replicas
        } else if says(&["readonly", "read only replica"]) {
            Self::ReadOnly
        } else if says(&["moved", "ask ", "clusterdown", "tryagain", "non local key"]) {
            Self::Slot
        } else if says(&["misconf"]) {
            Self::Disk
        } else if says(&["loading"]) {
            Self::Loading
        } else {
            Self::Other(error.to_owned())
        }
    }
}
