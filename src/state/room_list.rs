//! The list of all rooms: read once a second for all who ask, and sent as a whole to a few at a time.

use std::{
    net::IpAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use hyper::body::Bytes;
use tokio::{
    sync::{Mutex, Notify},
    time::{Instant, timeout},
};

use super::AppState;
use crate::{
    limits::{ConcurrencyLimiter, Permit},
    rooms::{ClusterUnavailable, RoomCounts},
};

/// How old a list of many rooms may be that is given to another client.
const MAX_AGE: Duration = Duration::from_secs(1);

/// The most rooms in a list that is read anew for each client: that costs less than its answer.
const MAX_CHEAP_ROOMS: usize = 256;

/// How many complete lists that do not fit into one chunk are sent at a time, over all and to one address.
const MAX_ANSWERS: usize = 4;
const MAX_ANSWERS_PER_ADDRESS: usize = 2;

/// How long a client waits until its complete list may be sent.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// The size of the pieces in which a complete list is sent, in bytes. A connection holds one or two of them.
const CHUNK_BYTES: usize = 64 * 1024;

/// The list of all rooms, as it was last read.
pub struct RoomLists {
    last: Arc<Mutex<Option<Reading>>>,
    answers: ConcurrencyLimiter,
    is_answered: Arc<Notify>,
}

struct Reading {
    began: Instant,
    list: Result<Arc<RoomList>, ClusterUnavailable>,
}

/// All rooms and how many members each has, by name, at one time.
#[derive(Debug, Default)]
pub struct RoomList {
    /// By name.
    pub rooms: RoomCounts,
    encoded: [OnceLock<ListChunks>; 2],
}

/// A complete list, as JSON in pieces.
pub type ListChunks = Arc<[Bytes]>;

/// Which clients a list is encoded for.
#[derive(Clone, Copy, Debug)]
pub enum ListAudience {
    /// Users.
    Users,
    /// Administrators.
    Administrators,
}

/// A complete list is sent until this is dropped.
#[derive(Debug)]
pub struct AnswerPermit {
    permit: Option<Permit>,
    is_answered: Arc<Notify>,
}

/// Too many complete lists are being sent.
#[derive(Debug)]
pub struct NoAnswerPermit;

impl Default for RoomLists {
    fn default() -> Self {
        let answers = ConcurrencyLimiter::new(MAX_ANSWERS, MAX_ANSWERS_PER_ADDRESS);
        Self { last: Arc::default(), answers, is_answered: Arc::default() }
    }
}

impl RoomLists {
    /// Waits for a permit to send a complete list to `address`.
    ///
    /// # Errors
    ///
    /// [`NoAnswerPermit`], after a few seconds.
    pub async fn permit(&self, address: IpAddr) -> Result<AnswerPermit, NoAnswerPermit> {
        let acquire = async {
            loop {
                let mut answered = std::pin::pin!(self.is_answered.notified());
                answered.as_mut().enable();
                if let Some(permit) = self.answers.acquire(address) {
                    return permit;
                }
                answered.await;
            }
        };
        let permit = timeout(ANSWER_WAIT, acquire).await.map_err(|_elapsed| NoAnswerPermit)?;
        Ok(AnswerPermit { permit: Some(permit), is_answered: self.is_answered.clone() })
    }
}

impl Drop for AnswerPermit {
    fn drop(&mut self) {
        self.permit = None;
        self.is_answered.notify_waiters();
    }
}

impl AppState {
    /// The list of all rooms. One of many rooms may be up to a second old.
    ///
    /// # Errors
    ///
    /// [`ClusterUnavailable`].
    pub async fn room_list(&self) -> Result<Arc<RoomList>, ClusterUnavailable> {
        let (asked, app, last) = (Instant::now(), self.clone(), self.room_lists.last.clone());
        // A task of its own: it ends what it began also where its client has gone, and the next one need not begin anew.
        let reading = tokio::spawn(async move {
            let mut last = last.lock().await;
            if let Some(reading) = &*last
                && reading.is_good_for(asked)
            {
                return reading.list.clone();
            }
            let began = Instant::now();
            let rooms = app.rooms.backend().list(&app.rooms).await;
            let list = rooms.map(|rooms| Arc::new(RoomList::from(rooms)));
            *last = Some(Reading { began, list: list.clone() });
            list
        });
        reading.await.unwrap_or(Err(ClusterUnavailable))
    }
}

impl Reading {
    fn is_good_for(&self, asked: Instant) -> bool {
        let is_cheap = self.list.as_ref().is_ok_and(|list| list.rooms.len() <= MAX_CHEAP_ROOMS);
        self.began >= asked || (!is_cheap && self.began.elapsed() < MAX_AGE)
    }
}

impl From<RoomCounts> for RoomList {
    /// The list of `rooms`, which are in order.
    fn from(rooms: RoomCounts) -> Self {
        Self { rooms, ..Self::default() }
    }
}

impl RoomList {
    /// Whether a complete list fits into one chunk, and so costs no more than other answers.
    pub fn is_short(&self) -> bool {
        let bytes: usize = self.rooms.iter().map(|(room, _)| room.len()).sum();
        self.rooms.len() <= MAX_CHEAP_ROOMS && bytes <= CHUNK_BYTES / 2
    }

    /// The list as a JSON array for `audience`, in which `encode` is one room; the same for all who ask. Blocks.
    pub fn chunks(
        &self,
        audience: ListAudience,
        encode: impl Fn(&Arc<str>, usize) -> String,
    ) -> ListChunks {
        let encoded = match (audience, &self.encoded) {
            (ListAudience::Users, [users, _]) => users,
            (ListAudience::Administrators, [_, administrators]) => administrators,
        };
        encoded.get_or_init(|| self.encode(encode)).clone()
    }

    fn encode(&self, encode: impl Fn(&Arc<str>, usize) -> String) -> ListChunks {
        let (mut chunks, mut chunk) = (Vec::new(), String::from("["));
        for (index, (room, members)) in self.rooms.iter().enumerate() {
            if index > 0 {
                chunk.push(',');
            }
            chunk.push_str(&encode(room, *members));
            if chunk.len() >= CHUNK_BYTES {
                chunks.push(Bytes::from(std::mem::take(&mut chunk)));
            }
        }
        chunk.push(']');
        chunks.push(chunk.into());
        chunks.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(count: usize) -> RoomList {
        let rooms = (0..count).map(|number| (format!("room-{number:05}").into(), number));
        RoomList::from(rooms.collect::<Vec<_>>())
    }

    #[test]
    fn the_pieces_of_a_list_are_one_json_array_and_are_encoded_once() {
        for count in [0, 1, 2, 20_000] {
            let list = list(count);
            let encode = |room: &Arc<str>, members| format!("[\"{room}\",{members}]");

            let chunks = list.chunks(ListAudience::Users, encode);

            let again = list.chunks(ListAudience::Users, |_, _| unreachable!());
            assert!(Arc::ptr_eq(&chunks, &again));
            assert!(chunks.iter().all(|chunk| chunk.len() < CHUNK_BYTES + 100));
            let json: Vec<(String, usize)> = serde_json::from_slice(&chunks.concat()).unwrap();
            assert_eq!(json.len(), count);
            assert!(json.is_sorted());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn four_lists_are_sent_at_a_time_two_to_one_address_and_others_wait_a_while() {
        let (lists, ip) = (RoomLists::default(), |number| IpAddr::from([192, 0, 2, number]));
        let first = lists.permit(ip(1)).await.unwrap();
        let _second = lists.permit(ip(1)).await.unwrap();
        let began = Instant::now();
        assert!(lists.permit(ip(1)).await.is_err());
        assert_eq!(began.elapsed(), ANSWER_WAIT);
        let _others = [lists.permit(ip(2)).await.unwrap(), lists.permit(ip(3)).await.unwrap()];
        assert!(lists.permit(ip(4)).await.is_err());

        let waiting = async { lists.permit(ip(4)).await.is_ok() };
        let (is_permitted, ()) = tokio::join!(waiting, async { drop(first) });

        assert!(is_permitted);
    }
}
