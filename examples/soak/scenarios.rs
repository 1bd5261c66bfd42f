//! What the clients do, and how they leave.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use signaling::auth::users::{self, EditError, UsersTable};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_tungstenite::tungstenite::Message;

use crate::clients::{
    Clients, Member, PASSWORD, Received, SHORT_LIVED, Socket, TIMEOUT, TestError, USERS,
    expect_close, receive, receive_kind, send, user,
};

/// How many candidates each side of a call sends.
const CANDIDATES: u64 = 20;

/// An edit of the users file.
type Change<'a> = &'a (dyn Fn(&mut UsersTable) -> Result<(), EditError> + Sync);

impl Clients {
    /// Runs one of the scenarios; half of them are calls.
    pub async fn run_scenario(&self) -> Result<(), TestError> {
        let room = format!("room{}", self.random(self.sockets / 4 + 1));
        let name = user(self.random(USERS));
        match self.random(100) {
            0..50 => self.call(&room).await,
            50..57 => self.ping_and_leave(&room, &name).await,
            57..61 => self.send_nothing(&room).await,
            61..64 => self.start_with(&room, r#"{"type":"auth_token","token":"a.b.c"}"#).await,
            64..67 => self.start_with(&room, r#"{"type":"offer","offer":{}}"#).await,
            67..73 => self.reload(&room, &name).await,
            73..78 => self.refresh(&room, &name).await,
            78..80 => self.log_out(&room, &name).await,
            80..82 => self.log_in(&name).await,
            82..88 => self.browse(&room).await,
            88..92 => self.send_half_a_request().await,
            92..95 => self.violate_protocol(&room, &name).await,
            95..96 => self.stop_reading().await,
            _ => self.lose_network(&room, &name).await,
        }
    }

    /// Two members set up a call, with others in the room, and stay for a while.
    async fn call(&self, room: &str) -> Result<(), TestError> {
        let (Some(mut a), Some(mut b)) = (
            self.join(room, &user(self.random(USERS))).await?,
            self.join(room, &user(self.random(USERS))).await?,
        ) else {
            return Ok(()); // the room is full; a member that has joined drops its connection
        };
        let sdp = "v=0\r\n".repeat(400);
        send(&mut a.socket, &json!({"type":"offer","offer":{"sdp":sdp},"to":b.id})).await?;
        expect(&mut b.socket, "offer", &a.id).await?;
        send(&mut b.socket, &json!({"type":"answer","answer":{"sdp":sdp},"to":a.id})).await?;
        expect(&mut a.socket, "answer", &b.id).await?;
        for n in 0..CANDIDATES {
            for (from, to) in [(&mut a.socket, &b.id), (&mut b.socket, &a.id)] {
                let candidate =
                    json!({"candidate":"candidate:1 1 udp 1 192.0.2.1 9 typ host","n":n});
                send(from, &json!({"type":"ice_candidate","candidate":candidate,"to":to})).await?;
            }
        }
        for (socket, from) in [(&mut a.socket, &b.id), (&mut b.socket, &a.id)] {
            for n in 0..CANDIDATES {
                let frame = expect(socket, "ice_candidate", from).await?;
                if frame["candidate"]["n"] != n {
                    return Err(format!("candidate {n} is missing: {frame}").into());
                }
            }
        }
        send(&mut a.socket, &json!({"type":"message","data":{"muted":true}})).await?;
        let (a, b) = tokio::join!(self.stay_and_leave(a), self.stay_and_leave(b));
        a.and(b)
    }

    async fn ping_and_leave(&self, room: &str, name: &str) -> Result<(), TestError> {
        let Some(mut member) = self.join(room, name).await? else { return Ok(()) };
        send(&mut member.socket, &json!({"type":"ping"})).await?;
        receive_kind(&mut member.socket, "pong").await?;
        self.leave(member).await
    }

    async fn send_nothing(&self, room: &str) -> Result<(), TestError> {
        expect_close(&mut self.open(room, None).await?, &[1008]).await
    }

    async fn start_with(&self, room: &str, frame: &str) -> Result<(), TestError> {
        let mut socket = self.open(room, None).await?;
        socket.send(Message::text(frame)).await?;
        expect_close(&mut socket, &[1008]).await
    }

    /// A page is reloaded: its new connection replaces the one with the same client id.
    async fn reload(&self, room: &str, name: &str) -> Result<(), TestError> {
        let Some(mut before) = self.join(room, name).await? else { return Ok(()) };
        let after = self.join_as(room, name, before.id.clone(), None).await?;
        let after = after.ok_or("a full room refuses the replacement of a member")?;
        expect_close(&mut before.socket, &[4001]).await?;
        self.stay_and_leave(after).await
    }

    async fn refresh(&self, room: &str, name: &str) -> Result<(), TestError> {
        let Some(mut member) = self.join(room, name).await? else { return Ok(()) };
        let (status, token) = self.request("POST /auth/refresh", &bearer(&member), "").await?;
        let token: serde_json::Value = serde_json::from_str(&token)?;
        if status != 200 {
            return Err(format!("status {status} for a token refresh").into());
        }
        send(&mut member.socket, &json!({"type":"auth_token","token":token["access_token"]}))
            .await?;
        receive_kind(&mut member.socket, "token_refreshed").await?;
        self.stay_and_leave(member).await
    }

    async fn log_out(&self, room: &str, name: &str) -> Result<(), TestError> {
        let Some(mut member) = self.join(room, name).await? else { return Ok(()) };
        self.request("POST /auth/logout", &bearer(&member), "").await?;
        expect_close(&mut member.socket, &[1008]).await
    }

    async fn log_in(&self, name: &str) -> Result<(), TestError> {
        let is_correct = self.random(2) == 0;
        let password = if is_correct { PASSWORD } else { "wrong horse" };
        let login = json!({"username":name,"password":password}).to_string();
        match (self.request("POST /auth/login", "", &login).await?.0, is_correct) {
            (200, true) | (401, false) | (429 | 503, _) => Ok(()),
            (status, _) => Err(format!("status {status} for a login").into()),
        }
    }

    async fn browse(&self, room: &str) -> Result<(), TestError> {
        let line = match self.random(4) {
            0 => "GET /api/rooms".to_owned(),
            1 => format!("POST /api/rooms/{room}/info"),
            2 => "DELETE /no/such/page".to_owned(),
            _ => "GET /".to_owned(),
        };
        self.request(&line, "", "").await.map(|_| ())
    }

    /// Sends half a head, or half a body; some wait until the server closes the connection.
    async fn send_half_a_request(&self) -> Result<(), TestError> {
        let mut stream = self.connect(None).await?;
        let half = match self.random(2) {
            0 => "GET / HTTP/1.1\r\nHost: so",
            _ => {
                "POST /auth/login HTTP/1.1\r\nHost: soak\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
            }
        };
        stream.write_all(half.as_bytes()).await?;
        if self.random(2) == 0 {
            let closed = timeout(2 * TIMEOUT, stream.read_to_end(&mut Vec::new())).await;
            let _ =
                closed.map_err(|_| "the server waits for the rest of a request for too long")?;
        }
        Ok(())
    }

    /// Sends what the protocol forbids.
    async fn violate_protocol(&self, room: &str, name: &str) -> Result<(), TestError> {
        let Some(mut member) = self.join(room, name).await? else { return Ok(()) };
        let socket = &mut member.socket;
        match self.random(4) {
            0 => {
                socket.send(Message::binary(vec![1, 2, 3])).await?;
                expect_close(socket, &[1003]).await
            }
            1 => {
                let _ = socket.send(Message::text("x".repeat(300_000))).await; // the server closes while it receives
                expect_close(socket, &[1009, 1006]).await
            }
            2 => {
                socket.get_mut().write_all(&[0xff; 8]).await?;
                expect_close(socket, &[1002, 1006]).await
            }
            _ => {
                for _ in 0..1000 {
                    socket.feed(Message::text(r#"{"type":"ping"}"#)).await?;
                }
                socket.flush().await?;
                receive_kind(socket, "error").await.map(|_| ())
            }
        }
    }

    /// One member stops reading while another sends to it, until the server disconnects it.
    async fn stop_reading(&self) -> Result<(), TestError> {
        let Ok(_permit) = self.slow_readers.try_acquire() else { return Ok(()) };
        let room = format!("slow{}", self.random(u64::MAX));
        let id = "slow".to_owned();
        let slow = self.join_as(&room, &user(0), id, Some(4096)).await?;
        let sender = self.join(&room, &user(1)).await?.ok_or("a new room is full")?;
        let (mut sink, mut stream) = sender.socket.split();
        let sending = async {
            let data = "x".repeat(60_000);
            let message = json!({"type":"message","data":data,"to":"slow"}).to_string();
            for n in 0..1000 {
                sink.send(Message::text(message.as_str())).await?;
                if n > 200 {
                    sleep(Duration::from_millis(30)).await; // within the message rate limit
                }
            }
            Err("a member that does not read was not disconnected".into())
        };
        let receiving = async {
            while let Some(Ok(message)) = stream.next().await {
                if message.to_text().is_ok_and(|text| text.contains("user_left")) {
                    return Ok(());
                }
            }
            Err("the member that sends to a slow reader was disconnected".into())
        };
        let done = tokio::select! { done = sending => done, done = receiving => done };
        drop(slow);
        done
    }

    /// The network is lost: the client neither reads nor writes.
    async fn lose_network(&self, room: &str, name: &str) -> Result<(), TestError> {
        let Some(mut member) = self.join(room, name).await? else { return Ok(()) };
        sleep(Duration::from_secs(15)).await;
        expect_close(&mut member.socket, &[1001, 1006]).await
    }

    /// Receives for a while, during which the server must not close the socket.
    async fn stay_and_leave(&self, mut member: Member) -> Result<(), TestError> {
        let until = Instant::now() + Duration::from_millis(1000 + self.random(15_000));
        while let Ok(received) = timeout_at(until, receive(&mut member.socket)).await {
            if let Received::Closed(code) = received? {
                return Err(format!("closed with {code} during a call").into());
            }
        }
        self.leave(member).await
    }

    /// Leaves in one of several ways.
    async fn leave(&self, mut member: Member) -> Result<(), TestError> {
        match self.random(6) {
            0 => Ok(()),                                         // the process ends
            1 => Ok(member.socket.get_mut().set_zero_linger()?), // and the system resets the connection
            2 => Ok(member.socket.get_mut().write_all(&[0x81, 0xfe, 1, 0, 7]).await?), // half a frame
            _ => {
                member.socket.close(None).await?;
                let rest = async { while let Some(Ok(_)) = member.socket.next().await {} };
                Ok(timeout(TIMEOUT, rest).await.map_err(|_| "no answer to a Close frame")?)
            }
        }
    }

    /// Two members exchange messages until `end`, five at a time, and must receive every one in order.
    pub async fn steady_pair(&self, pair: u64, end: Instant) -> Result<(), TestError> {
        let room = format!("steady{pair}");
        let a = self.join(&room, &user(pair)).await?.ok_or("a new room is full")?;
        let b = self.join(&room, &user(pair + 1)).await?.ok_or("a room of two is full")?;
        let (mut a, mut b) = (a, b);
        receive_kind(&mut a.socket, "user_joined").await?;
        let mut sent = 0_u64;
        while Instant::now() < end {
            let start = Instant::now();
            for n in sent..sent + 5 {
                send(&mut a.socket, &json!({"type":"message","data":n,"to":b.id})).await?;
                send(&mut b.socket, &json!({"type":"message","data":n})).await?;
            }
            for (socket, from) in [(&mut a.socket, &b.id), (&mut b.socket, &a.id)] {
                for n in sent..sent + 5 {
                    match receive(socket).await? {
                        Received::Frame(frame) if frame["data"] == n && frame["from"] == **from => {
                        }
                        other => {
                            return Err(
                                format!("{room}: expected message {n}, got {other:?}").into()
                            );
                        }
                    }
                }
            }
            sent += 5;
            self.messages.fetch_add(10, Relaxed);
            self.slowest.fetch_max(u64::try_from(start.elapsed().as_millis())?, Relaxed);
            sleep(Duration::from_millis(200)).await;
        }
        a.socket.close(None).await?;
        Ok(b.socket.close(None).await?)
    }

    /// Removes an account, disables it or changes its password, which must close its sockets, and then restores it.
    pub async fn change_account(&self, end: Instant) -> Result<(), TestError> {
        let other = bcrypt::hash("another password", 4)?;
        while Instant::now() + TIMEOUT < end {
            let mut sockets = [self.join_short_lived().await?, self.join_short_lived().await?];
            let hash = &self.hash;
            let (codes, back): (_, Change<'_>) = match self.random(3) {
                0 => {
                    self.edit(|table| table.remove(SHORT_LIVED))?;
                    ([4003], &|table| table.add(SHORT_LIVED, "soak@example.com", hash))
                }
                1 => {
                    self.edit(|table| table.set_active(SHORT_LIVED, false))?;
                    ([4003], &|table| table.set_active(SHORT_LIVED, true))
                }
                _ => {
                    self.edit(|table| table.set_hash(SHORT_LIVED, &other))?;
                    ([1008], &|table| table.set_hash(SHORT_LIVED, hash))
                }
            };
            for socket in &mut sockets {
                expect_close(socket, &codes).await?;
            }
            self.edit(back)?;
        }
        self.join_short_lived().await.map(|_| ())
    }

    /// A socket of the short-lived account, once the server has read the users file.
    async fn join_short_lived(&self) -> Result<Socket, TestError> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            match self.join("accounts", SHORT_LIVED).await {
                Ok(Some(member)) => return Ok(member.socket),
                Err(_) | Ok(None) if Instant::now() < deadline => {
                    sleep(Duration::from_millis(500)).await;
                }
                Ok(None) => return Err("the room of the short-lived account is full".into()),
                Err(error) => return Err(error),
            }
        }
    }

    fn edit(
        &self,
        change: impl FnOnce(&mut UsersTable) -> Result<(), EditError>,
    ) -> Result<(), TestError> {
        Ok(tokio::task::block_in_place(|| users::edit(&self.users_csv, change))?)
    }
}

fn bearer(member: &Member) -> String {
    format!("Authorization: Bearer {}\r\n", member.token)
}

/// Receives the next frame of a kind, which must be from this peer.
async fn expect(
    socket: &mut Socket,
    kind: &str,
    from: &str,
) -> Result<serde_json::Value, TestError> {
    let frame = receive_kind(socket, kind).await?;
    let is_from_peer = frame["from"] == from;
    if is_from_peer { Ok(frame) } else { Err(format!("{frame} is not from {from}").into()) }
}
