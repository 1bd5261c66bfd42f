//! What administrators do with rooms and members, on this server and on all that share rooms with it.

use std::time::Duration;

use bytestring::ByteString;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::App;
use crate::{
    clock::{unix_now, unix_now_ms},
    moderation::{About, LONGEST, Order, Orders, TooMany, Who},
    rooms::{Peer, Rooms},
    wire::ServerMessage,
};

/// How far the clocks of two servers may differ without somebody staying who was thrown out just after coming in.
const CLOCKS_DIFFER: Duration = Duration::from_secs(5);

/// Something to say to a room, or to one of its members, on every server.
#[derive(Deserialize, Serialize)]
struct Announcement {
    room: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    frame: String,
}

impl App {
    /// Throws members out of a room, or an account out of all, and keeps them out for so many seconds, which may be 0.
    ///
    /// # Errors
    ///
    /// [`TooMany`]; then nothing has changed.
    pub async fn ban(
        &self,
        room: Option<String>,
        who: Who,
        seconds: u64,
    ) -> Result<Order, TooMany> {
        let order = self.orders.given(About::Ban { room, who }, unix_now_ms(), seconds)?;
        self.order(order.clone()).await;
        Ok(order)
    }

    /// Lets nobody into a room any more who is not in.
    ///
    /// # Errors
    ///
    /// [`TooMany`]; then nothing has changed.
    pub async fn lock(&self, room: String) -> Result<Order, TooMany> {
        let order = self.orders.given(About::Lock { room }, unix_now_ms(), LONGEST)?;
        self.order(order.clone()).await;
        Ok(order)
    }

    /// Has a room hold so many members, also where others hold more or fewer. Who is in stays.
    ///
    /// # Errors
    ///
    /// [`TooMany`]; then nothing has changed.
    pub async fn set_capacity(&self, room: String, members: usize) -> Result<Order, TooMany> {
        let order = self.orders.given(About::Capacity { room }, unix_now_ms(), LONGEST)?;
        let order = Order { members: Some(members), ..order };
        self.order(order.clone()).await;
        Ok(order)
    }

    /// Takes an order back; whether it stood.
    pub async fn lift(&self, about: About) -> bool {
        let stood = self.orders.standing(unix_now()).iter().any(|order| order.about == about);
        if stood && let Ok(order) = self.orders.given(about, unix_now_ms(), 0) {
            self.order(Order { is_lifted: true, ..order }).await;
        }
        stood
    }

    async fn order(&self, order: Order) {
        let line = order.line();
        obey(&self.orders, &self.rooms, order);
        let app = self.clone();
        let _ = tokio::task::spawn_blocking(move || app.save_orders()).await;
        if let Some(cluster) = &self.cluster {
            cluster.orders(&[line]).await;
        }
    }

    /// Says something to everybody in a room, or to one; how many that is on this server. Other servers say it to theirs.
    pub async fn announce(&self, room: String, to: Option<String>, data: &RawValue) -> usize {
        let frame = ServerMessage::Announcement { data }.encode();
        let told = self.rooms.announce(&room, to.as_deref(), &frame);
        if let Some(cluster) = &self.cluster {
            let announcement = Announcement { room, to, frame: frame.to_string() };
            if let Ok(announcement) = serde_json::to_string(&announcement) {
                cluster.announces(&announcement).await;
            }
        }
        told
    }
}

/// Takes in an order, of this server's administrator or of another's, and does what it says.
pub(super) fn obey(orders: &Orders, rooms: &Rooms, order: Order) {
    if !orders.take(order.clone()) {
        return;
    }
    let stands = order.stands(unix_now());
    match &order.about {
        About::Ban { room, .. } => {
            let age = Duration::from_millis(unix_now_ms().saturating_sub(order.at));
            // It may come late, when somebody is in again who was only kicked.
            let is_meant = |room: &str, peer: &Peer, here: Duration| {
                (stands || here + CLOCKS_DIFFER >= age)
                    && order.throws_out(room, &peer.username, &peer.client_id)
            };
            let act = if stands { "ban" } else { "kick" };
            rooms.throws_out(room.as_deref(), is_meant, act);
        }
        About::Lock { room } => rooms.notes_order(room, if stands { "lock" } else { "unlock" }),
        About::Capacity { room } => rooms.holds(room, order.members.filter(|_| stands)),
    }
}

/// Says what another server's administrator has to say.
pub(super) fn announce(rooms: &Rooms, announcement: &str) {
    if let Ok(Announcement { room, to, frame }) = serde_json::from_str(announcement) {
        rooms.announce(&room, to.as_deref(), &ByteString::from(frame));
    }
}
