//! What a membership decides, as values: no socket, no sleep.

use super::*;

/// Half of what is possible, each time.
const RANDOM: f64 = 0.5;

/// A membership on a clock that the test moves, and what came of it since somebody looked.
struct Life {
    membership: Membership,
    now: Duration,
    said: Vec<Value>,
    told: Vec<Event>,
    /// Everything else, in order.
    done: Vec<Effect>,
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

impl Life {
    fn begins(client_id: Option<&str>, can_renew: bool) -> Self {
        let membership = Membership::new(client_id.map(str::to_owned), can_renew);
        let (said, told, done) = (Vec::new(), Vec::new(), Vec::new());
        let mut life = Self { membership, now: Duration::ZERO, said, told, done };
        life.collects();
        life
    }

    /// In the room, with bob there, and on a token that is good for so long.
    fn in_the_room(can_renew: bool, token_lives: Option<Duration>) -> Self {
        let mut life = Self::begins(None, can_renew);
        life.hears(json!({"type":"auth_required"}));
        life.gets_token("T", token_lives);
        life.is_let_in(&["bob"]);
        life.forgets();
        life
    }

    fn is_let_in(&mut self, others: &[&str]) {
        self.hears(
            json!({"type":"auth_success","user":"alice","client_id":"alice-1","resume_token":"R1"}),
        );
        let users: Vec<_> = others.iter().map(|name| member(name)).collect();
        self.hears(json!({"type":"users_in_room","users":users,"seq":1}));
    }

    fn learns(&mut self, fact: Fact) {
        self.membership.learns(fact, Moment { now: self.now, random: RANDOM });
        self.collects();
    }

    fn collects(&mut self) {
        while let Some(effect) = self.membership.effect() {
            match effect {
                Effect::Send(text) => self.said.push(serde_json::from_str(&text).unwrap()),
                Effect::Tell(event) => self.told.push(event),
                Effect::Open | Effect::Abandon | Effect::ClusterCommand(..) | Effect::Close => {
                    self.done.push(effect);
                }
            }
        }
    }

    fn forgets(&mut self) {
        self.said.clear();
        self.told.clear();
        self.done.clear();
    }

    fn hears(&mut self, frame: Value) {
        self.learns(Fact::Heard(frame.to_string()));
    }

    fn gets_token(&mut self, token: &str, life: Option<Duration>) {
        let token = Ok((Some(token.to_owned()), life));
        self.learns(Fact::Token(Purpose::Introduction, token));
    }

    fn says(&mut self, data: impl Into<Value>) {
        self.learns(Fact::Said(object(json!({"type":"message","data":data.into()}))));
    }

    fn loses(&mut self, code: u16, reason: &str) {
        self.learns(Fact::Lost { code, reason: reason.to_owned() });
    }

    /// Timers go off when they are due.
    fn passes(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.membership.wakes_at().filter(|at| *at <= end) {
            self.now = at;
            self.learns(Fact::Woken);
        }
        self.now = end;
    }

    /// The next socket, up to the server's question.
    fn is_asked_again(&mut self) {
        let retry = self.membership.retry.expect("there is no next attempt");
        self.passes(retry.saturating_sub(self.now));
        assert_eq!(self.done.last(), Some(&Effect::Open));
        self.forgets();
        self.hears(json!({"type":"auth_required"}));
    }

    fn resumes(&mut self) {
        self.is_asked_again();
        assert_eq!(self.said.remove(0)["type"], "resume");
        self.hears(json!({"type":"resumed","client_id":"alice-1","replayed":0,"users":[]}));
    }

    fn state(&self) -> State {
        self.membership.state()
    }

    fn retry_in(&self) -> Option<Duration> {
        let changes = self.told.iter().rev();
        let mut changes = changes.filter_map(|event| {
            if let Event::State(change) = event { Some(change.retry_in) } else { None }
        });
        changes.next().flatten()
    }

    fn ids_said(&self) -> Vec<u64> {
        self.said.iter().filter_map(|frame| frame["id"].as_u64()).collect()
    }
}

fn member(name: &str) -> Value {
    json!({"client_id":format!("{name}-1"),"username":name,"polite":true})
}

fn peer(name: &str) -> Member {
    Member { client_id: format!("{name}-1"), username: name.to_owned(), polite: true }
}

fn connected(is_resumed: bool) -> Event {
    let state = State::Connected;
    Event::State(Change { state, is_resumed, retry_in: None, code: None, reason: None })
}

#[test]
fn introduces_itself_with_what_it_can_do_and_is_in_once_it_is_shown_around() {
    let mut life = Life::begins(Some("alice-1"), true);
    assert_eq!((life.state(), &life.done[..]), (State::Connecting, &[Effect::Open][..]));

    life.hears(json!({"type":"auth_required","message":"x"}));
    assert_eq!(life.done.last(), Some(&Effect::ClusterCommand(Purpose::Introduction, false)));
    life.gets_token("T", None);
    let features = json!(["resume", "peer_state", "ice"]);
    assert_eq!(
        life.said,
        [json!({"type":"auth_token","token":"T","clientId":"alice-1","features":features})]
    );
    life.is_let_in(&["bob"]);

    assert_eq!(life.told, [connected(false), Event::PeerJoined(peer("bob"))]);
    let names = (life.membership.client_id(), life.membership.username());
    assert_eq!(names, (Some("alice-1"), Some("alice")));
    assert_eq!(life.membership.peers().collect::<Vec<_>>(), [&peer("bob")]);
}

#[test]
fn a_guest_leaves_the_token_out() {
    let mut life = Life::begins(None, false);

    life.hears(json!({"type":"auth_required"}));
    life.learns(Fact::Token(Purpose::Introduction, Ok((None, None))));

    assert_eq!(life.said, [json!({"type":"auth_token","features":["resume","peer_state","ice"]})]);
}

#[test]
fn what_is_said_before_it_is_in_is_said_then() {
    let mut life = Life::begins(None, false);
    life.says("early");
    life.loses(1006, "");
    life.is_asked_again();
    life.gets_token("T", None);
    life.forgets();

    life.is_let_in(&[]);

    assert_eq!(life.said, [json!({"type":"message","data":"early","id":1,"ack":1})]);
}

#[test]
fn comes_back_where_it_was_and_says_again_in_order_what_may_not_have_arrived() {
    let mut life = Life::in_the_room(false, None);
    life.says("arrived");
    life.passes(ms(15_000));
    assert_eq!(life.said.last().unwrap(), &json!({"type":"ping"}));
    life.hears(json!({"type":"pong","seq":2}));
    life.says("perhaps");
    assert_eq!(
        life.said.last().unwrap(),
        &json!({"type":"message","data":"perhaps","id":2,"ack":2})
    );

    life.forgets();
    life.loses(1006, "");
    life.says("while away");
    assert_eq!((life.state(), life.retry_in()), (State::Reconnecting, Some(ms(150))));
    assert_eq!(life.said, [] as [Value; 0]);
    life.is_asked_again();
    assert_eq!(life.said, [json!({"type":"resume","resume_token":"R1","last_seq":2})]);
    life.forgets();
    life.hears(json!({"type":"resumed","client_id":"alice-1","replayed":1,"resume_token":"R2"}));
    life.hears(json!({"type":"message","data":"missed","from":"bob-1","username":"bob","seq":3}));

    assert_eq!(
        life.said,
        [
            json!({"type":"message","data":"perhaps","id":2}),
            json!({"type":"message","data":"while away","id":3})
        ]
    );
    let missed = Event::Message {
        from: "bob-1".to_owned(),
        username: "bob".to_owned(),
        data: "missed".into(),
    };
    assert_eq!(life.told, [connected(true), missed]);
    life.loses(1006, "");
    life.is_asked_again();
    assert_eq!(life.said, [json!({"type":"resume","resume_token":"R2","last_seq":3})]);
}

#[test]
fn tells_what_an_administrator_says() {
    let mut life = Life::in_the_room(false, None);
    life.forgets();

    life.hears(json!({"type":"server_message","data":{"text":"bye"}}));

    assert_eq!(life.told, [Event::ServerMessage { data: json!({"text":"bye"}) }]);
}

#[test]
fn sits_down_anew_on_the_same_socket_where_it_cannot_go_on() {
    let mut life = Life::in_the_room(false, None);
    life.says("of another life");
    life.loses(1006, "");
    life.is_asked_again();
    life.forgets();

    life.hears(json!({"type":"error","code":"resume_failed","message":"too late"}));
    assert_eq!(life.done, [Effect::ClusterCommand(Purpose::Introduction, false)]);
    life.gets_token("T", None);
    assert_eq!(
        (&life.said[0]["type"], &life.said[0]["clientId"]),
        (&json!("auth_token"), &json!("alice-1"))
    );
    life.forgets();
    life.is_let_in(&["carol"]);
    life.says("of this one");

    let bob_is_missing = Event::PeerLeft { peer: peer("bob"), is_missing: true };
    let carol_is_there = Event::PeerJoined(peer("carol"));
    assert_eq!(life.told, [connected(false), bob_is_missing, carol_is_there]);
    assert_eq!(life.said, [json!({"type":"message","data":"of this one","id":2,"ack":1})]);
    // There is no way back to the life before.
    life.loses(1006, "");
    life.is_asked_again();
    assert_eq!(life.said, [json!({"type":"resume","resume_token":"R1","last_seq":1})]);
}

#[test]
fn who_comes_and_goes_is_told_once() {
    let mut life = Life::in_the_room(false, None);
    let joined = |name: &str| {
        let mut frame = member(name);
        frame["type"] = "user_joined".into();
        frame
    };

    life.hears(joined("carol"));
    life.hears(joined("carol"));
    life.hears(json!({"type":"user_left","client_id":"carol-1"}));
    life.hears(json!({"type":"user_left","client_id":"carol-1"}));
    life.hears(json!({"type":"peer_state","client_id":"bob-1","state":"reconnecting"}));

    let away = PeerState::Reconnecting;
    assert_eq!(
        life.told,
        [
            Event::PeerJoined(peer("carol")),
            Event::PeerLeft { peer: peer("carol"), is_missing: false },
            Event::PeerState { client_id: "bob-1".to_owned(), state: away },
        ]
    );
    assert_eq!(life.membership.peers().collect::<Vec<_>>(), [&peer("bob")]);
}

#[test]
fn descriptions_and_candidates_are_told_as_they_were_said() {
    let mut life = Life::in_the_room(false, None);
    let offer = json!({"type":"offer","sdp":"v=0","pc":"a"});
    let candidate = json!({"candidate":"candidate:1 1 udp 1 192.0.2.1 9 typ host"});
    let mut expected = Vec::new();
    for (name, field, kind, payload, told) in [
        ("offer", "offer", SignalKind::Offer, &offer, &offer),
        ("answer", "answer", SignalKind::Answer, &offer, &offer),
        ("ice_candidate", "candidate", SignalKind::IceCandidate, &candidate, &candidate),
        ("ice_candidate", "candidate", SignalKind::IceCandidate, &Value::Null, &Value::Null),
        ("ice_candidate", "candidate", SignalKind::IceCandidate, &json!(""), &Value::Null),
        ("ice_candidate", "none", SignalKind::IceCandidate, &json!(""), &Value::Null),
    ] {
        life.hears(json!({"type":name,field:payload,"from":"bob-1","username":"bob"}));
        let (from, username) = ("bob-1".to_owned(), "bob".to_owned());
        expected.push(Event::Signal { from, username, kind, payload: told.clone() });
    }

    assert_eq!(life.told, expected);
}

#[test]
fn what_it_does_not_know_is_nothing_to_it() {
    let mut life = Life::in_the_room(false, None);

    for text in [
        "",
        "[]",
        "7",
        "{}",
        r#"{"type":7}"#,
        r#"{"type":"tomorrow","from":"bob-1"}"#,
        r#"{"type":"user_joined"}"#,
        r#"{"type":"message"}"#,
        r#"{"type":"error"}"#,
    ] {
        life.learns(Fact::Heard(text.to_owned()));
    }

    assert_eq!((life.told, life.said, life.done), (vec![], vec![], vec![]));
}

/// Every row of `clients/closes.json`, for somebody in the room who can ask for another token.
#[test]
fn a_close_means_what_the_list_says() {
    let list = include_str!("../../../closes.json");
    let rows: Vec<Value> = serde_json::from_str(list).unwrap();
    assert!(rows.len() > 20);

    for row in rows {
        let mut life = Life::in_the_room(true, None);
        if let Some(error) = row.get("error") {
            let mut error = error.clone();
            error["type"] = "error".into();
            error["message"] = "x".into();
            life.hears(error);
        }
        let code = u16::try_from(row["code"].as_u64().unwrap()).unwrap();
        life.loses(code, row["reason"].as_str().unwrap());

        match row["then"].as_str().unwrap() {
            "retry" => {
                assert_eq!(life.state(), State::Reconnecting, "{row}");
                life.is_asked_again();
                assert_eq!(life.said[0]["type"], "resume", "{row}");
            }
            "renew" => {
                assert_eq!(life.state(), State::Reconnecting, "{row}");
                life.is_asked_again();
                assert_eq!(
                    life.done,
                    [Effect::ClusterCommand(Purpose::Introduction, true)],
                    "{row}"
                );
            }
            "stop" => {
                let fatal = life
                    .told
                    .iter()
                    .any(|event| matches!(event, Event::Error(Error::Closed { .. })));
                assert!(fatal && life.state() == State::Closed, "{row}: {:?}", life.told);
                assert_eq!(life.membership.wakes_at(), None, "{row}");
            }
            other => panic!("{other} in {row}"),
        }
    }
}

#[test]
fn a_token_that_is_refused_is_renewed_once_until_it_is_in() {
    let mut life = Life::begins(None, true);
    life.hears(json!({"type":"auth_required"}));
    life.gets_token("T1", None);
    life.loses(1008, "Invalid token");
    assert_eq!(life.state(), State::Connecting);
    life.is_asked_again();
    assert_eq!(life.done, [Effect::ClusterCommand(Purpose::Introduction, true)]);
    life.gets_token("T2", None);
    life.is_let_in(&[]);

    life.loses(1008, "Invalid token");
    assert_eq!(life.state(), State::Reconnecting, "it has been in since");
    life.is_asked_again();
    life.gets_token("T3", None);
    life.loses(1008, "Invalid token");

    assert_eq!(life.state(), State::Closed);
    let message = "Invalid token".to_owned();
    let over = Error::Closed { code: "closed".to_owned(), message };
    assert!(life.told.contains(&Event::Error(over)), "{:?}", life.told);
}

#[test]
fn who_has_one_token_and_no_more_is_out_when_it_is_refused() {
    let mut life = Life::in_the_room(false, None);

    life.loses(1008, "Invalid token");

    assert_eq!(life.state(), State::Closed);
}

#[test]
fn a_new_token_is_shown_a_minute_before_the_old_one_ends_or_half_way() {
    for (lives, shown_after) in [(1800, 1740), (120, 60), (60, 30), (1, 1), (0, 1)] {
        let mut life = Life::in_the_room(true, Some(Duration::from_secs(lives)));
        let asked = Effect::ClusterCommand(Purpose::Refresh, true);

        for second in 0..shown_after {
            assert!(!life.done.contains(&asked), "{lives}: after {second} s");
            life.passes(ms(1000));
            if life.said.last().is_some_and(|said| said["type"] == "ping") {
                life.hears(json!({"type":"pong"}));
            }
        }
        assert!(life.done.contains(&asked), "{lives}: not after {shown_after} s");
        let token = Ok((Some("T2".to_owned()), Some(Duration::from_secs(600))));
        life.learns(Fact::Token(Purpose::Refresh, token));
        life.hears(json!({"type":"token_refreshed","expires_in":600,"resume_token":"R9","seq":2}));

        let shown = life.said.last().unwrap();
        assert_eq!((&shown["type"], &shown["token"]), (&json!("auth_token"), &json!("T2")));
        let again = life.membership.refresh.unwrap() - life.now;
        assert_eq!(again, Duration::from_secs(540));
        life.loses(1006, "");
        life.is_asked_again();
        assert_eq!(life.said[0]["resume_token"], "R9");
    }
}

#[test]
fn a_token_that_cannot_be_had_is_told_and_asked_for_again() {
    let mut life = Life::begins(None, true);
    life.hears(json!({"type":"auth_required"}));
    life.forgets();

    let error = Error::NoToken("no network".to_owned());
    life.learns(Fact::Token(Purpose::Introduction, Err(error.clone())));

    assert_eq!(life.told[0], Event::Error(error));
    assert_eq!((life.state(), &life.done[..]), (State::Connecting, &[Effect::Abandon][..]));
    life.is_asked_again();
    assert_eq!(life.done, [Effect::ClusterCommand(Purpose::Introduction, false)]);
}

#[test]
fn a_refresh_that_fails_is_tried_again_and_never_the_end() {
    let mut life = Life::in_the_room(true, Some(ms(20_000)));
    let never = Error::Closed { code: "no_token".to_owned(), message: "x".to_owned() };
    life.passes(ms(10_000));

    for error in [Error::NoToken("x".to_owned()), never] {
        assert_eq!(life.done, [Effect::ClusterCommand(Purpose::Refresh, true)]);
        life.forgets();
        life.learns(Fact::Token(Purpose::Refresh, Err(error)));
        assert_eq!(life.told, [Event::Error(Error::NoToken("x".to_owned()))]);
        life.hears(json!({"type":"pong"}));
        life.passes(ms(14_999));
        assert_eq!((life.state(), &life.done[..]), (State::Connected, &[][..]));
        life.passes(ms(1));
    }
}

#[test]
fn a_token_that_will_never_be_had_is_the_end() {
    let mut life = Life::begins(None, true);
    life.hears(json!({"type":"auth_required"}));
    life.forgets();

    let error = Error::Closed { code: "no_token".to_owned(), message: "wrong password".to_owned() };
    life.learns(Fact::Token(Purpose::Introduction, Err(error.clone())));

    assert_eq!((&life.told[0], life.state()), (&Event::Error(error), State::Closed));
    assert_eq!(life.membership.wakes_at(), None);
}

#[test]
fn a_token_for_a_socket_that_is_gone_is_not_shown_on_the_next() {
    let mut life = Life::begins(None, true);
    life.hears(json!({"type":"auth_required"}));
    life.loses(1006, "");

    life.gets_token("T", None);

    assert_eq!(life.said, [] as [Value; 0]);
}

#[test]
fn pauses_grow_twofold_to_their_limit_and_are_drawn_from_all_of_it() {
    for (number, most) in [300, 600, 1200, 2400, 4800, 9600, 15_000, 15_000].into_iter().enumerate()
    {
        for random in [0.0, 0.25, 0.999_999] {
            let pause = pause_before(number as u32, random);
            assert!(pause <= ms(most) && pause >= ms(most).mul_f64(random * 0.999), "{pause:?}");
        }
    }
    assert_eq!(pause_before(u32::MAX, 0.5), ms(7500));

    let mut life = Life::in_the_room(false, None);
    let mut pauses = Vec::new();
    for _ in 0..8 {
        life.loses(1006, "");
        pauses.push(life.retry_in().unwrap().as_millis());
        life.is_asked_again();
    }
    assert_eq!(pauses, [150, 300, 600, 1200, 2400, 4800, 7500, 7500]);
    life.hears(json!({"type":"resumed","client_id":"alice-1"}));
    life.loses(1006, "");
    assert_eq!(life.retry_in(), Some(ms(150)), "it has been in since");
}

#[test]
fn a_server_that_stops_says_when_to_come_back() {
    let mut life = Life::in_the_room(false, None);
    life.hears(json!({"type":"server_shutdown","reconnect_in_ms":4200}));
    let error = json!({"type":"error","code":"server_restarting","message":"x","retry":true,"retry_after_ms":9000});
    life.hears(error);
    life.loses(1012, "Server is restarting");

    assert_eq!(life.retry_in(), Some(ms(4200)), "what was said first");
    life.passes(ms(4199));
    assert_eq!(life.done, []);
    life.passes(ms(1));
    assert_eq!(life.done, [Effect::Open]);
    life.loses(1006, "");
    assert_eq!(life.retry_in(), Some(ms(150)), "that was for once");
}

#[test]
fn an_error_with_a_time_says_when_to_come_back() {
    let mut life = Life::begins(None, false);
    life.hears(
        json!({"type":"error","code":"draining","message":"x","retry":true,"retry_after_ms":700}),
    );
    life.loses(1012, "Server is restarting");

    assert_eq!((life.state(), life.retry_in()), (State::Connecting, Some(ms(700))));
}

#[test]
fn an_error_that_is_not_the_last_word_is_told_and_the_session_goes_on() {
    let mut life = Life::in_the_room(false, None);

    life.hears(json!({"type":"error","code":"target_not_found","message":"nobody","id":1,"seq":2}));

    let (code, message) = ("target_not_found".to_owned(), "nobody".to_owned());
    assert_eq!(life.told, [Event::Error(Error::Refused { code, message })]);
    assert_eq!(life.state(), State::Connected);
}

#[test]
fn what_was_heard_is_acknowledged_in_the_next_frame_or_after_thirty_two() {
    let mut life = Life::in_the_room(false, None);
    let hears = |life: &mut Life, seq: u64| {
        life.hears(json!({"type":"message","data":0,"from":"bob-1","username":"bob","seq":seq}));
    };

    (2..32).for_each(|seq| hears(&mut life, seq));
    assert_eq!(life.said, [] as [Value; 0]);
    hears(&mut life, 32);
    assert_eq!(life.said, [json!({"type":"ping","ack":32})]);
    // One ping at a time; its answer is the occasion for the next.
    (33..100).for_each(|seq| hears(&mut life, seq));
    assert_eq!(life.said.len(), 1);
    life.hears(json!({"type":"pong","seq":100}));
    hears(&mut life, 101);
    assert_eq!(life.said[1..], [json!({"type":"ping","ack":101})]);
    life.says("x");
    assert_eq!(life.said.last().unwrap()["ack"], Value::Null, "nothing new");
}

#[test]
fn a_pong_forgets_what_was_said_before_its_ping_and_nothing_after_it() {
    let mut life = Life::in_the_room(false, None);
    (1..=3).for_each(|number| life.says(number));
    life.passes(ms(15_000));
    (4..=5).for_each(|number| life.says(number));
    life.hears(json!({"type":"pong"}));

    life.forgets();
    life.loses(1006, "");
    life.resumes();

    assert_eq!(life.ids_said(), [4, 5]);
}

#[test]
fn a_ping_that_was_lost_forgets_nothing() {
    let mut life = Life::in_the_room(false, None);
    life.says("x");
    life.passes(ms(15_000));
    life.loses(1006, "");
    life.resumes();
    life.hears(json!({"type":"pong"}));

    life.forgets();
    life.loses(1006, "");
    life.resumes();

    assert_eq!(life.ids_said(), [1]);
}

/// It carries a number like all others, so it comes again where it was lost with the socket.
#[test]
fn a_pong_that_was_meant_for_the_socket_before_forgets_nothing() {
    let mut life = Life::in_the_room(false, None);
    life.passes(ms(15_000));
    life.loses(1006, "");
    life.is_asked_again();
    life.hears(json!({"type":"resumed","client_id":"alice-1","replayed":40,"users":[]}));
    life.says("on this one");
    for seq in 2..41 {
        life.hears(json!({"type":"tomorrow","seq":seq}));
    }
    assert_eq!(life.said.last().unwrap()["type"], "ping", "a new one, to acknowledge");
    life.hears(json!({"type":"pong","seq":41}));

    life.forgets();
    life.loses(1006, "");
    life.resumes();
    assert_eq!(life.ids_said(), [1]);

    life.passes(ms(15_000));
    life.hears(json!({"type":"pong","seq":42}));
    life.forgets();
    life.loses(1006, "");
    life.resumes();
    assert_eq!(life.ids_said(), [] as [u64; 0], "that one counts");
}

#[test]
fn the_last_two_hundred_are_kept_and_a_pong_forgets_none_too_many() {
    let mut life = Life::in_the_room(false, None);
    (0..10).for_each(|number| life.says(number));
    life.passes(ms(15_000));
    (10..205).for_each(|number| life.says(number));
    // Five of those before the ping were dropped meanwhile; the pong answers for the other five.
    life.hears(json!({"type":"pong"}));
    life.forgets();
    life.loses(1006, "");
    life.resumes();
    assert_eq!(life.ids_said(), (11..=205).collect::<Vec<_>>());

    life.loses(1006, "");
    (0..300).for_each(|number| life.says(number));
    life.resumes();
    assert_eq!(life.ids_said(), (306..=505).collect::<Vec<_>>());
}

#[test]
fn a_silence_of_fifteen_seconds_is_asked_and_one_of_ten_more_is_the_end_of_the_socket() {
    let mut life = Life::in_the_room(false, None);
    life.passes(ms(14_000));
    life.hears(json!({"type":"tomorrow"}));
    life.passes(ms(14_999));
    assert_eq!(life.said, [] as [Value; 0], "any frame counts");
    life.passes(ms(1));
    assert_eq!(life.said.len(), 1);

    life.passes(ms(9_999));
    assert_eq!((life.state(), &life.done[..]), (State::Connected, &[][..]));
    life.passes(ms(1));

    assert_eq!((life.state(), &life.done[..]), (State::Reconnecting, &[Effect::Abandon][..]));
    let silent = |event: &Event| matches!(event, Event::State(change) if change.code == Some(1006));
    assert!(life.told.iter().any(silent));
}

/// A long replay on a slow network: the pong comes behind all of it.
#[test]
fn a_socket_on_which_something_is_heard_is_not_given_up_for_a_late_pong() {
    let mut life = Life::in_the_room(false, None);
    life.passes(ms(15_000));

    for _ in 0..10 {
        life.passes(ms(9_000));
        life.hears(json!({"type":"tomorrow"}));
    }

    assert_eq!((life.state(), life.said.len()), (State::Connected, 1));
}

#[test]
fn a_socket_that_does_not_bring_us_in_is_given_up_after_ten_seconds() {
    let mut life = Life::begins(None, false);
    life.passes(ms(9_000));
    life.hears(json!({"type":"auth_required"}));

    life.passes(ms(1_000));

    assert!(life.done.contains(&Effect::Abandon));
    assert_eq!(life.state(), State::Connecting);
}

#[test]
fn a_door_that_is_none_is_told_to_whoever_has_never_been_in() {
    for (status, is_told) in
        [(404, true), (403, true), (400, true), (429, false), (503, false), (200, false)]
    {
        let mut newcomer = Life::begins(None, false);
        newcomer.learns(Fact::NotUpgraded(status));
        assert_eq!(newcomer.state() == State::Closed, is_told, "{status}");

        let mut member = Life::in_the_room(false, None);
        member.loses(1006, "");
        member.is_asked_again();
        member.learns(Fact::NotUpgraded(status));
        assert_eq!(member.state(), State::Reconnecting, "{status}");
    }
}

#[test]
fn ice_servers_are_told_and_kept_and_their_credentials_are_not_in_what_is_printed() {
    let mut life = Life::in_the_room(false, None);
    let servers =
        json!([{"urls":["turn:turn.example.com"],"username":"1:alice","credential":"s3cret"}]);

    life.hears(json!({"type":"ice_servers","iceServers":servers,"ttl":60,"seq":2}));

    let server = &life.membership.ice_servers()[0];
    assert_eq!(server.credential.as_deref(), Some("s3cret"));
    assert_eq!(life.told, [Event::IceServers(vec![server.clone()])]);
    let printed = format!("{:?}", life.told);
    assert!(printed.contains("turn.example.com") && !printed.contains("s3cret"), "{printed}");
}

#[test]
fn who_leaves_has_left_and_hears_no_more() {
    let mut life = Life::in_the_room(true, Some(ms(60_000)));
    life.says("goodbye");
    life.learns(Fact::Left);
    life.hears(json!({"type":"message","data":1,"from":"bob-1","username":"bob"}));
    life.says("too late");
    life.loses(1006, "");

    assert_eq!((life.state(), &life.done[..]), (State::Closed, &[Effect::Close][..]));
    assert_eq!((life.said.len(), life.told.len()), (1, 1));
    assert_eq!((life.membership.wakes_at(), life.membership.peers().count()), (None, 0));
}
