//! Compares what this node knows of its members with what Redis stores, and states again what is missing there.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    convert::Infallible,
    sync::Arc,
};

use redis::{RedisError, RedisResult};
use sha1::{Digest, Sha1};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::{
    connection::RedisConnection,
    inbox::EntryId,
    link::EngineLink,
    messages::ClusterCommand,
    resync::MAX_PIPELINED_ROOMS,
    scripts::{call, call_with_webhooks},
};
use crate::migration::MemberRecord;

/// Rooms that are compared in one call, so that Redis is never busy for long.
const ROOMS_PER_CALL: usize = 128;

/// Rooms that all nodes together compare in one interval: some 3 % of the time of a Redis, however many rooms there are.
const ROOMS_PER_INTERVAL: usize = 4_096;

/// Rooms that Redis names in one call, about.
const ROOMS_PER_SCAN: usize = 1_000;

/// Members that only this node or only Redis knows, by room. An entry on its way may explain that, but none after the id that
/// stands with it: that was the newest one of the inbox when the difference was first seen.
type Suspects = HashMap<Suspect, EntryId>;

/// A room, and a member of it.
type Suspect = (Arc<str>, MemberRecord);

/// The rooms that are left of a pass through all of them.
#[derive(Default)]
struct UncheckedRooms(Vec<Arc<str>>);

impl UncheckedRooms {
    /// Takes as many as one of so many nodes compares in one interval.
    fn take(&mut self, nodes: usize) -> impl Iterator<Item = Arc<str>> {
        let most = (ROOMS_PER_INTERVAL / nodes.max(1)).max(ROOMS_PER_CALL);
        self.0.drain(self.0.len().saturating_sub(most)..)
    }
}

/// What check.lua finds.
#[derive(Debug, Default)]
struct Differences {
    /// Rooms in which other members are stored than this node knows of its own.
    rooms: BTreeSet<Arc<str>>,
    /// Rooms whose counts are not those of the stored members: a key was lost.
    damaged: BTreeSet<Arc<str>>,
}

/// Where sweep.lua goes on: in the list of rooms, and among all keys.
struct SweepPosition {
    rooms: String,
    keys: String,
}

impl Default for SweepPosition {
    fn default() -> Self {
        Self { rooms: "0".to_owned(), keys: "0".to_owned() }
    }
}

impl EngineLink {
    /// Compares and repairs at each heartbeat, until an error.
    pub(super) async fn run_checks(
        &self,
        mut writer: RedisConnection,
    ) -> Result<Infallible, RedisError> {
        let timings = self.gateway.timings;
        let mut ticks = interval(timings.heartbeat_interval());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut sweep, mut suspects, mut was_right) =
            (SweepPosition::default(), Suspects::new(), true);
        let mut unchecked = UncheckedRooms::default();
        loop {
            ticks.tick().await;
            if unchecked.0.is_empty() {
                unchecked = UncheckedRooms(self.known_rooms(&mut writer).await?);
            }
            let mut rooms: BTreeSet<_> = unchecked.take(self.gateway.last_nodes()).collect();
            rooms.extend(suspected_rooms(&suspects));
            let mut repairs = self.compare(&mut writer, &mut suspects, rooms).await?;
            if !suspects.is_empty() {
                // What is on its way has arrived by then, as a rule.
                sleep(timings.confirm_interval() * 2).await;
                let rooms = suspected_rooms(&suspects).collect();
                repairs += self.compare(&mut writer, &mut suspects, rooms).await?;
            }
            repairs += self.sweep(&mut writer, &mut sweep).await?;
            self.gateway.note_repairs(repairs);
            if repairs > 0 && was_right {
                tracing::warn!(
                    engine = self.number,
                    repairs,
                    "redis had lost members or counts of rooms; they were stated again"
                );
            }
            was_right = repairs == 0;
        }
    }

    /// Looks for differences in these rooms, and repairs those that no entry on its way explains; how many those were. The others
    /// are the suspects of the next look.
    async fn compare(
        &self,
        writer: &mut RedisConnection,
        suspects: &mut Suspects,
        rooms: BTreeSet<Arc<str>>,
    ) -> RedisResult<u64> {
        let Differences { rooms, damaged } = self.find_differences(writer, rooms).await?;
        let (mut repairs, mut missing) = (damaged.len(), damaged);
        let known = std::mem::take(suspects);
        for some in Vec::from_iter(rooms).chunks(MAX_PIPELINED_ROOMS) {
            for (suspect, since, is_certain) in self.look(writer, some, &known).await? {
                let (room, record) = &suspect;
                if !is_certain {
                    suspects.insert(suspect, since);
                    continue;
                }
                repairs += 1;
                if self.rooms.local_members_of(room).1.contains(record) {
                    missing.insert(room.clone());
                } else {
                    self.remove_stored(room, record);
                }
            }
        }
        self.state_missing(writer, missing).await?;
        Ok(repairs as u64)
    }

    /// The members of this node in these rooms that only one side knows, each with the id behind which no entry explains it,
    /// and whether everything up to that was read.
    async fn look(
        &self,
        writer: &mut RedisConnection,
        rooms: &[Arc<str>],
        known: &Suspects,
    ) -> RedisResult<Vec<(Suspect, EntryId, bool)>> {
        let mut pipe = redis::pipe();
        for room in rooms {
            pipe.hgetall(self.keys.room(room));
        }
        let stored: Vec<BTreeMap<String, String>> = pipe.query_async(writer).await?;
        // After that: what has changed what was stored is not newer.
        let newest = self.newest_entry(writer).await?;
        // Before the local members: they are as of this entry, or of a later one.
        let read = self.position().as_deref().map_or(EntryId::MIN, EntryId::parse);
        let mut found = Vec::new();
        for (room, stored) in rooms.iter().zip(stored) {
            let stored =
                stored.iter().filter_map(|(id, record)| MemberRecord::parse(id, record).ok());
            let stored: HashSet<_> =
                stored.filter(|record| record.connection.node == self.gateway.node).collect();
            let local: HashSet<_> = self.rooms.local_members_of(room).1.into_iter().collect();
            for record in stored.symmetric_difference(&local) {
                let suspect = (room.clone(), record.clone());
                let since = known.get(&suspect).copied();
                let is_certain = since.is_some_and(|since| read >= since);
                found.push((suspect, since.unwrap_or(newest), is_certain));
            }
        }
        Ok(found)
    }

    /// The rooms of this Redis in which this node has members, or Redis thinks so.
    async fn known_rooms(&self, writer: &mut RedisConnection) -> RedisResult<Vec<Arc<str>>> {
        let seats = self.keys.key(&format!("seats:{}", self.gateway.node));
        let is_of_engine = |room: &str| self.gateway.engine_of(room) == self.number;
        let mut rooms: HashSet<_> = self.rooms.names(is_of_engine).into_iter().collect();
        let mut cursor = 0;
        loop {
            let mut scan = redis::cmd("SSCAN");
            scan.arg(&seats).arg(cursor).arg("COUNT").arg(ROOMS_PER_SCAN);
            let (next, stored): (u64, Vec<String>) = scan.query_async(writer).await?;
            rooms.extend(stored.into_iter().map(Arc::from));
            cursor = next;
            if cursor == 0 {
                return Ok(rooms.into_iter().collect());
            }
        }
    }

    async fn find_differences(
        &self,
        writer: &mut RedisConnection,
        rooms: BTreeSet<Arc<str>>,
    ) -> RedisResult<Differences> {
        let rooms = Vec::from_iter(rooms);
        let mut differences = Differences::default();
        for some in rooms.chunks(ROOMS_PER_CALL) {
            let mut check = call(&self.keys, &self.gateway.scripts.check);
            check.arg(&*self.gateway.node);
            for room in some {
                let (_, members) = self.rooms.local_members_of(room);
                check.arg(&**room).arg(members.iter().map(digest).sum::<u64>());
            }
            let (different, damaged): (Vec<String>, Vec<String>) =
                check.query_async(writer).await?;
            differences.rooms.extend(different.into_iter().map(Arc::from));
            differences.damaged.extend(damaged.into_iter().map(Arc::from));
        }
        Ok(differences)
    }

    /// States the members of rooms in which some are missing, and makes their counts right.
    async fn state_missing(
        &self,
        writer: &mut RedisConnection,
        rooms: BTreeSet<Arc<str>>,
    ) -> RedisResult<()> {
        for some in Vec::from_iter(rooms).chunks(MAX_PIPELINED_ROOMS) {
            let of_room = |room: &Arc<str>| {
                let (epoch, members) = self.rooms.local_members_of(room);
                (room.clone(), epoch, members)
            };
            let rooms: Vec<_> = some.iter().map(of_room).collect();
            self.state_rooms(writer, &rooms, "repair").await?;
        }
        Ok(())
    }

    /// Has Redis remove a member of this node that only Redis knows.
    fn remove_stored(&self, room: &Arc<str>, record: &MemberRecord) {
        let (peer, key, reason) = (record.peer.clone(), record.connection.key, Some("lost"));
        let leave = ClusterCommand::Leave { room: room.clone(), peer, key, reason, sequence: 0 };
        self.gateway.send(room, leave);
    }

    /// Has Redis look through some rooms for members of nodes that are gone; how much it has changed.
    async fn sweep(
        &self,
        writer: &mut RedisConnection,
        position: &mut SweepPosition,
    ) -> RedisResult<u64> {
        let mut sweep = call_with_webhooks(&self.keys, &self.gateway.scripts.sweep, &self.webhooks);
        sweep.arg(&position.rooms).arg(&position.keys);
        let (rooms, keys, changed, records): (String, String, u64, Vec<u8>) =
            sweep.query_async(writer).await?;
        *position = SweepPosition { rooms, keys };
        self.emit_webhooks(&records);
        Ok(changed)
    }
}

fn suspected_rooms(suspects: &Suspects) -> impl Iterator<Item = Arc<str>> {
    suspects.keys().map(|(room, _)| room.clone())
}

/// What check.lua computes of a member.
fn digest(member: &MemberRecord) -> u64 {
    let text = format!("{} {}", member.peer.client_id, member.to_record());
    let hash = Sha1::digest(text);
    let first = hash.first_chunk::<4>().copied().unwrap_or_default();
    u64::from(u32::from_be_bytes(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_looks_at_each_room_once_and_at_no_more_than_a_share_of_the_interval() {
        for (nodes, most) in [(0, 4_096), (1, 4_096), (3, 1_365), (1_000, 128)] {
            let rooms = (0..10_000).map(|room| Arc::from(room.to_string()));
            let mut unchecked = UncheckedRooms(rooms.collect());
            let mut seen = BTreeSet::new();
            while !unchecked.0.is_empty() {
                let some: Vec<_> = unchecked.take(nodes).collect();
                assert!((1..=most).contains(&some.len()), "{} of {most}", some.len());
                seen.extend(some);
            }
            assert_eq!(seen.len(), 10_000);
        }
    }
}
