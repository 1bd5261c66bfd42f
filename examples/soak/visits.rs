//! What clients do once they are here, and how they go.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use signaling::auth::users_file::{self, EditError, UsersTable};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    Fault,
    town::{
        Heard, Member, PASSWORD, SHORT_LIVED, SOON, Socket, Town, USERS, hear, let_go, say, until,
        user,
    },
};

/// How many candidates each side of a call finds.
const CANDIDATES: u64 = 20;

/// An edit of the users file.
type Change<'a> = &'a (dyn Fn(&mut UsersTable) -> Result<(), EditError> + Sync);

impl Town {
    /// Somebody comes for one of many reasons, half of them for a call.
    pub async fn visit(&self) -> Result<(), Fault> {
        let room = format!("room{}", self.draw(self.clients / 4 + 1));
        let name = user(self.draw(USERS));
        match self.draw(100) {
            0..50 => self.call(&room).await,
            50..57 => self.ping_and_go(&room, &name).await,
            57..61 => self.say_nothing(&room).await,
            61..64 => self.begin_with(&room, r#"{"type":"auth_token","token":"a.b.c"}"#).await,
            64..67 => self.begin_with(&room, r#"{"type":"offer","offer":{}}"#).await,
            67..73 => self.reload(&room, &name).await,
            73..78 => self.refresh(&room, &name).await,
            78..80 => self.log_out(&room, &name).await,
            80..82 => self.log_in(&name).await,
            82..88 => self.browse(&room).await,
            88..92 => self.ask_by_halves().await,
            92..95 => self.go_wrong(&room, &name).await,
            95..96 => self.turn_deaf().await,
            _ => self.fall_silent(&room, &name).await,
        }
    }

    /// Two set up a call, with others in the room, and stay a while.
    async fn call(&self, room: &str) -> Result<(), Fault> {
        let (Some(mut a), Some(mut b)) = (
            self.join(room, &user(self.draw(USERS))).await?,
            self.join(room, &user(self.draw(USERS))).await?,
        ) else {
            return Ok(()); // whoever found a seat goes without a word
        };
        let sdp = "v=0\r\n".repeat(400);
        say(&mut a.socket, &json!({"type":"offer","offer":{"sdp":sdp},"to":b.id})).await?;
        expect(&mut b.socket, "offer", &a.id).await?;
        say(&mut b.socket, &json!({"type":"answer","answer":{"sdp":sdp},"to":a.id})).await?;
        expect(&mut a.socket, "answer", &b.id).await?;
        for n in 0..CANDIDATES {
            for (from, to) in [(&mut a.socket, &b.id), (&mut b.socket, &a.id)] {
                let candidate =
                    json!({"candidate":"candidate:1 1 udp 1 192.0.2.1 9 typ host","n":n});
                say(from, &json!({"type":"ice_candidate","candidate":candidate,"to":to})).await?;
            }
        }
        for (socket, from) in [(&mut a.socket, &b.id), (&mut b.socket, &a.id)] {
            for n in 0..CANDIDATES {
                let news = expect(socket, "ice_candidate", from).await?;
                if news["candidate"]["n"] != n {
                    return Err(format!("candidate {n} is missing: {news}").into());
                }
            }
        }
        say(&mut a.socket, &json!({"type":"message","data":{"muted":true}})).await?;
        let (a, b) = tokio::join!(self.stay_and_go(a), self.stay_and_go(b));
        a.and(b)
    }

    async fn ping_and_go(&self, room: &str, name: &str) -> Result<(), Fault> {
        let Some(mut member) = self.join(room, name).await? else { return Ok(()) };
        say(&mut member.socket, &json!({"type":"ping"})).await?;
        until(&mut member.socket, "pong").await?;
        self.go(member).await
    }

    async fn say_nothing(&self, room: &str) -> Result<(), Fault> {
        let_go(&mut self.knock(room, None).await?, &[1008]).await
    }

    async fn begin_with(&self, room: &str, frame: &str) -> Result<(), Fault> {
        let mut socket = self.knock(room, None).await?;
        socket.send(Message::text(frame)).await?;
        let_go(&mut socket, &[1008]).await
    }

    /// A page is loaded again, and takes over its own client id.
    async fn reload(&self, room: &str, name: &str) -> Result<(), Fault> {
        let Some(mut before) = self.join(room, name).await? else { return Ok(()) };
        let after = self.join_as(room, name, before.id.clone(), None).await?;
        let after = after.ok_or("a full room has no place for who is in it")?;
        let_go(&mut before.socket, &[4001]).await?;
        self.stay_and_go(after).await
    }

    async fn refresh(&self, room: &str, name: &str) -> Result<(), Fault> {
        let Some(mut member) = self.join(room, name).await? else { return Ok(()) };
        let (status, token) = self.ask("POST /auth/refresh", &bearer(&member), "").await?;
        let token: serde_json::Value = serde_json::from_str(&token)?;
        if status != 200 {
            return Err(format!("a refresh is answered with {status}").into());
        }
        say(&mut member.socket, &json!({"type":"auth_token","token":token["access_token"]}))
            .await?;
        until(&mut member.socket, "token_refreshed").await?;
        self.stay_and_go(member).await
    }

    async fn log_out(&self, room: &str, name: &str) -> Result<(), Fault> {
        let Some(mut member) = self.join(room, name).await? else { return Ok(()) };
        self.ask("POST /auth/logout", &bearer(&member), "").await?;
        let_go(&mut member.socket, &[1008]).await
    }

    async fn log_in(&self, name: &str) -> Result<(), Fault> {
        let is_right = self.draw(2) == 0;
        let password = if is_right { PASSWORD } else { "wrong horse" };
        let login = json!({"username":name,"password":password}).to_string();
        match (self.ask("POST /auth/login", "", &login).await?.0, is_right) {
            (200, true) | (401, false) | (429 | 503, _) => Ok(()),
            (status, _) => Err(format!("a login is answered with {status}").into()),
        }
    }

    async fn browse(&self, room: &str) -> Result<(), Fault> {
        let what = match self.draw(4) {
            0 => "GET /api/rooms".to_owned(),
            1 => format!("POST /api/rooms/{room}/info"),
            2 => "DELETE /no/such/page".to_owned(),
            _ => "GET /".to_owned(),
        };
        self.ask(&what, "", "").await.map(|_| ())
    }

    /// Half a head, or half a body; some wait until they are cut.
    async fn ask_by_halves(&self) -> Result<(), Fault> {
        let mut stream = self.connect(None).await?;
        let half = match self.draw(2) {
            0 => "GET / HTTP/1.1\r\nHost: so",
            _ => {
                "POST /auth/login HTTP/1.1\r\nHost: soak\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
            }
        };
        stream.write_all(half.as_bytes()).await?;
        if self.draw(2) == 0 {
            let cut = timeout(2 * SOON, stream.read_to_end(&mut Vec::new())).await;
            let _ = cut.map_err(|_| "half a request is waited for all the time")?;
        }
        Ok(())
    }

    /// Says what nobody may say.
    async fn go_wrong(&self, room: &str, name: &str) -> Result<(), Fault> {
        let Some(mut member) = self.join(room, name).await? else { return Ok(()) };
        let socket = &mut member.socket;
        match self.draw(4) {
            0 => {
                socket.send(Message::binary(vec![1, 2, 3])).await?;
                let_go(socket, &[1003]).await
            }
            1 => {
                let _ = socket.send(Message::text("x".repeat(70_000))).await; // it is cut in the middle
                let_go(socket, &[1009, 1006]).await
            }
            2 => {
                socket.get_mut().write_all(&[0xff; 8]).await?;
                let_go(socket, &[1002, 1006]).await
            }
            _ => {
                for _ in 0..1000 {
                    socket.feed(Message::text(r#"{"type":"ping"}"#)).await?;
                }
                socket.flush().await?;
                until(socket, "error").await.map(|_| ())
            }
        }
    }

    /// One stops reading while another talks to him, until the server gives him up.
    async fn turn_deaf(&self) -> Result<(), Fault> {
        let Ok(_permit) = self.deaf.try_acquire() else { return Ok(()) };
        let room = format!("deaf{}", self.draw(u64::MAX));
        let id = "deaf".to_owned();
        let deaf = self.join_as(&room, &user(0), id, Some(4096)).await?;
        let speaker = self.join(&room, &user(1)).await?.ok_or("a new room is full")?;
        let (mut sink, mut stream) = speaker.socket.split();
        let talking = async {
            let data = "x".repeat(60_000);
            let message = json!({"type":"message","data":data,"to":"deaf"}).to_string();
            for n in 0..1000 {
                sink.send(Message::text(message.as_str())).await?;
                if n > 200 {
                    sleep(Duration::from_millis(30)).await; // no faster than the rate limit has it
                }
            }
            Err("somebody who does not read is never given up".into())
        };
        let listening = async {
            while let Some(Ok(message)) = stream.next().await {
                if message.to_text().is_ok_and(|text| text.contains("user_left")) {
                    return Ok(());
                }
            }
            Err("whoever talks to somebody deaf is cut".into())
        };
        let done = tokio::select! { done = talking => done, done = listening => done };
        drop(deaf);
        done
    }

    /// The cable is pulled: nothing is read or written any more.
    async fn fall_silent(&self, room: &str, name: &str) -> Result<(), Fault> {
        let Some(mut member) = self.join(room, name).await? else { return Ok(()) };
        sleep(Duration::from_secs(15)).await;
        let_go(&mut member.socket, &[1001, 1006]).await
    }

    /// Listens for a while; nobody may be sent away meanwhile.
    async fn stay_and_go(&self, mut member: Member) -> Result<(), Fault> {
        let until = Instant::now() + Duration::from_millis(1000 + self.draw(15_000));
        while let Ok(heard) = timeout_at(until, hear(&mut member.socket)).await {
            if let Heard::Closed(code) = heard? {
                return Err(format!("closed with {code} in the middle of a call").into());
            }
        }
        self.go(member).await
    }

    /// Leaves, one way or another.
    async fn go(&self, mut member: Member) -> Result<(), Fault> {
        match self.draw(6) {
            0 => Ok(()),                                         // the process has ended
            1 => Ok(member.socket.get_mut().set_zero_linger()?), // and the system resets the connection
            2 => Ok(member.socket.get_mut().write_all(&[0x81, 0xfe, 1, 0, 7]).await?), // half a frame
            _ => {
                member.socket.close(None).await?;
                let all = async { while let Some(Ok(_)) = member.socket.next().await {} };
                Ok(timeout(SOON, all).await.map_err(|_| "a close is not answered")?)
            }
        }
    }

    /// Two talk to each other until `end`, five messages at a time, and hear every one in its order.
    pub async fn steady(&self, pair: u64, end: Instant) -> Result<(), Fault> {
        let room = format!("steady{pair}");
        let a = self.join(&room, &user(pair)).await?.ok_or("a new room is full")?;
        let b = self.join(&room, &user(pair + 1)).await?.ok_or("a room of two is full")?;
        let (mut a, mut b) = (a, b);
        until(&mut a.socket, "user_joined").await?;
        let mut said = 0_u64;
        while Instant::now() < end {
            let began = Instant::now();
            for n in said..said + 5 {
                say(&mut a.socket, &json!({"type":"message","data":n,"to":b.id})).await?;
                say(&mut b.socket, &json!({"type":"message","data":n})).await?;
            }
            for (socket, from) in [(&mut a.socket, &b.id), (&mut b.socket, &a.id)] {
                for n in said..said + 5 {
                    match hear(socket).await? {
                        Heard::Said(news) if news["data"] == n && news["from"] == **from => {}
                        other => {
                            return Err(format!("{room}: not message {n} but {other:?}").into());
                        }
                    }
                }
            }
            said += 5;
            self.exchanged.fetch_add(10, Relaxed);
            self.slowest.fetch_max(u64::try_from(began.elapsed().as_millis())?, Relaxed);
            sleep(Duration::from_millis(200)).await;
        }
        a.socket.close(None).await?;
        Ok(b.socket.close(None).await?)
    }

    /// An account is removed, disabled or given another password, and its sockets end; then it is as
    /// it was before.
    pub async fn come_and_go(&self, end: Instant) -> Result<(), Fault> {
        let other = bcrypt::hash("another password", 4)?;
        while Instant::now() + SOON < end {
            let mut sockets = [self.back_in_force().await?, self.back_in_force().await?];
            let hash = &self.hash;
            let (codes, back): (_, Change<'_>) = match self.draw(3) {
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
                let_go(socket, &codes).await?;
            }
            self.edit(back)?;
        }
        self.back_in_force().await.map(|_| ())
    }

    /// A socket of the account that comes and goes, as soon as the server knows it again.
    async fn back_in_force(&self) -> Result<Socket, Fault> {
        let deadline = Instant::now() + SOON;
        loop {
            match self.join("clerk", SHORT_LIVED).await {
                Ok(Some(member)) => return Ok(member.socket),
                Err(_) | Ok(None) if Instant::now() < deadline => {
                    sleep(Duration::from_millis(500)).await;
                }
                Ok(None) => return Err("the clerk's room is full".into()),
                Err(error) => return Err(error),
            }
        }
    }

    fn edit(
        &self,
        change: impl FnOnce(&mut UsersTable) -> Result<(), EditError>,
    ) -> Result<(), Fault> {
        Ok(tokio::task::block_in_place(|| users_file::edit(&self.users_csv, change))?)
    }
}

fn bearer(member: &Member) -> String {
    format!("Authorization: Bearer {}\r\n", member.token)
}

/// The next message of a kind, which must be from this peer.
async fn expect(socket: &mut Socket, kind: &str, from: &str) -> Result<serde_json::Value, Fault> {
    let news = until(socket, kind).await?;
    let fits = news["from"] == from;
    if fits { Ok(news) } else { Err(format!("{news} is not from {from}").into()) }
}
