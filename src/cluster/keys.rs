//! The names of the keys of one shard.

use super::redis_cluster::slot_of;

/// The keys of the rooms that belong to one entry of `REDIS_URL`.
///
/// All begin with one hash tag, so that a Redis Cluster keeps them in one slot, on one node. Each shard has another tag, so
/// that entries which name the same Redis or the same Redis Cluster do not share keys. The slots of four successive shards
/// are in the four quarters of all slots, and those of the first three in its thirds: on different nodes, in most clusters.
#[derive(Clone, Debug)]
pub struct ShardKeys {
    prefix: String,
}

impl ShardKeys {
    /// The keys of the shard with this number. The number behind `sig` changes with the format of what is stored.
    pub fn new(shard: usize) -> Self {
        Self { prefix: format!("{{sig2_{shard}}}:") }
    }

    /// The slot of a Redis Cluster that has all of them.
    pub fn slot(&self) -> u16 {
        slot_of(self.prefix.trim_start_matches('{').trim_end_matches("}:"))
    }

    /// What is in front of every key.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The key with this name.
    pub fn key(&self, name: &str) -> String {
        [&self.prefix, name].concat()
    }

    /// The members of a room.
    pub fn room(&self, room: &str) -> String {
        [&self.prefix, "room:", room].concat()
    }

    /// The inbox of a node.
    pub fn inbox(&self, node: &str) -> String {
        [&self.prefix, "inbox:", node].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slots_of_the_first_shards_are_in_different_thirds_of_all_slots() {
        let thirds: Vec<_> = (0..3).map(|shard| ShardKeys::new(shard).slot() / 5_462).collect();

        assert_eq!(thirds, [2, 1, 0]);
    }

    #[test]
    fn a_shard_has_one_hash_tag_of_its_own() {
        let (first, second) = (ShardKeys::new(0), ShardKeys::new(1));

        assert_eq!(first.inbox("a"), "{sig2_0}:inbox:a");
        assert_eq!(second.room("den"), "{sig2_1}:room:den");
        assert_eq!(second.key("nodes"), [second.prefix(), "nodes"].concat());
    }
}
