//! The recipes of the README, word for word, between two connections of str0m.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "these are tests"
)]

use std::{
    error::Error,
    net::SocketAddr,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use str0m::{
    Candidate, Event as RtcEvent, Input, Output, Rtc, RtcError,
    change::{SdpAnswer, SdpOffer, SdpPendingOffer},
    channel::ChannelId,
    format::PayloadParams,
    media::{Direction, MediaKind, MediaTime, Mid},
    net::{Protocol, Receive},
};

// recipe: Data channel
/// Opens a channel. The offer goes to the peer with `session.signal(SignalKind::Offer, offer, Some(&peer))`.
fn open_channel(rtc: &mut Rtc) -> Option<(ChannelId, SdpPendingOffer, Value)> {
    let mut changes = rtc.sdp_api();
    let channel = changes.add_channel("chat".to_owned());
    let (offer, pending) = changes.apply()?;
    Some((channel, pending, json!({"type":"offer","sdp":offer.to_sdp_string()})))
}

/// Takes the payload of a `SignalKind::Answer`.
fn take_answer(
    rtc: &mut Rtc,
    pending: SdpPendingOffer,
    answer: &Value,
) -> Result<(), Box<dyn Error>> {
    let sdp = answer.get("sdp").and_then(Value::as_str).unwrap_or_default();
    Ok(rtc.sdp_api().accept_answer(pending, SdpAnswer::from_sdp_string(sdp)?)?)
}
// end

// recipe: Screen share beside a camera
/// Two media sections. The labels, by stream id, reach a JavaScript client with the tracks.
fn share(rtc: &mut Rtc) -> Option<([Mid; 2], SdpPendingOffer, Value)> {
    let mut changes = rtc.sdp_api();
    let sections = ["camera", "screen"].map(|stream| {
        let stream = Some(stream.to_owned());
        changes.add_media(MediaKind::Video, Direction::SendOnly, stream, None, None)
    });
    let (offer, pending) = changes.apply()?;
    let labels = json!({"camera":"camera","screen":"screen"});
    let offer = json!({"type":"offer","sdp":offer.to_sdp_string(),"labels":labels});
    Some((sections, pending, offer))
}
// end

// recipe: Mute
/// The peer learns from the description that nothing comes any more.
fn set_muted(rtc: &mut Rtc, section: Mid, is_muted: bool) -> Option<(SdpPendingOffer, Value)> {
    let mut changes = rtc.sdp_api();
    let direction = if is_muted { Direction::Inactive } else { Direction::SendOnly };
    changes.set_direction(section, direction);
    let (offer, pending) = changes.apply()?;
    Some((pending, json!({"type":"offer","sdp":offer.to_sdp_string()})))
}
// end

// recipe: Device change
/// The frames of any device go into the same section, with times that go on: no negotiation.
fn write_frame(
    rtc: &mut Rtc,
    section: Mid,
    (now, at): (Instant, MediaTime),
    frame: Vec<u8>,
) -> Result<(), RtcError> {
    let Some(writer) = rtc.writer(section) else { return Ok(()) }; // not negotiated yet
    let payload_type = writer.payload_params().next().map(PayloadParams::pt);
    match payload_type {
        Some(payload_type) => writer.write(payload_type, now, at, frame),
        None => Ok(()),
    }
}
// end

/// One of the two connections, with an address of its own and what has happened to it.
struct End {
    rtc: Rtc,
    address: SocketAddr,
    events: Vec<RtcEvent>,
}

impl End {
    fn new(port: u16, now: Instant) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut rtc = Rtc::new(now);
        rtc.add_local_candidate(Candidate::host(address, "udp").unwrap());
        Self { rtc, address, events: Vec::new() }
    }
}

/// Two connections and their common time.
struct Pair {
    caller: End,
    called: End,
    now: Instant,
}

impl Pair {
    fn new() -> Self {
        let now = tokio::time::Instant::now().into_std();
        Self { caller: End::new(1, now), called: End::new(2, now), now }
    }

    /// The called one answers, and the caller takes the answer.
    fn negotiate(&mut self, pending: SdpPendingOffer, offer: &Value) {
        let sdp = offer.get("sdp").and_then(Value::as_str).unwrap();
        let offer = SdpOffer::from_sdp_string(sdp).unwrap();
        let answer = self.called.rtc.sdp_api().accept_offer(offer).unwrap();
        let answer = json!({"type":"answer","sdp":answer.to_sdp_string()});
        take_answer(&mut self.caller.rtc, pending, &answer).unwrap();
    }

    /// Lets time pass until `condition` holds.
    fn run_until(&mut self, condition: impl Fn(&mut Self) -> bool) {
        for _ in 0..10_000 {
            if condition(self) {
                return;
            }
            let mut next = self.now + Duration::from_millis(20);
            let mut packets = Vec::new();
            for end in [&mut self.caller, &mut self.called] {
                loop {
                    match end.rtc.poll_output().unwrap() {
                        Output::Timeout(at) => {
                            next = next.min(at);
                            break;
                        }
                        Output::Transmit(packet) => packets.push(packet),
                        Output::Event(event) => end.events.push(event),
                    }
                }
            }
            for packet in &packets {
                for end in [&mut self.caller, &mut self.called] {
                    if end.address == packet.destination {
                        let (from, to) = (packet.source, packet.destination);
                        let received = Receive::new(Protocol::Udp, from, to, &packet.contents);
                        end.rtc.handle_input(Input::Receive(self.now, received.unwrap())).unwrap();
                    }
                }
            }
            if packets.is_empty() {
                self.now = next.max(self.now + Duration::from_millis(1));
                for end in [&mut self.caller, &mut self.called] {
                    end.rtc.handle_input(Input::Timeout(self.now)).unwrap();
                }
            }
        }
        panic!("in vain: {:?} and {:?}", self.caller.events, self.called.events);
    }
}

#[test]
fn readme_has_the_recipes() {
    let (source, readme) = (include_str!("recipes.rs"), include_str!("../README.md"));
    let recipes: Vec<_> = source.split("\n// recipe: ").skip(1).collect();
    assert_eq!(recipes.len(), 4);
    for recipe in recipes {
        let (title, rest) = recipe.split_once('\n').unwrap();
        let (code, _) = rest.split_once("// end").unwrap();
        let (_, section) = readme.split_once(&format!("### {title}\n")).unwrap();
        let (_, block) = section.split_once("```rust\n").unwrap();
        let (block, _) = block.split_once("```").unwrap();
        assert_eq!(block, code, "{title}");
    }
}

#[test]
fn data_channel_carries_messages() {
    let mut pair = Pair::new();
    let (channel, pending, offer) = open_channel(&mut pair.caller.rtc).unwrap();
    pair.negotiate(pending, &offer);
    pair.run_until(|pair| pair.caller.rtc.channel(channel).is_some());
    pair.caller.rtc.channel(channel).unwrap().write(false, b"hello").unwrap();
    pair.run_until(|pair| {
        pair.called
            .events
            .iter()
            .any(|event| matches!(event, RtcEvent::ChannelData(data) if data.data == b"hello"))
    });
}

#[test]
fn screen_arrives_beside_the_camera() {
    let mut pair = Pair::new();
    let (sections, pending, offer) = share(&mut pair.caller.rtc).unwrap();
    pair.negotiate(pending, &offer);
    pair.run_until(|pair| {
        let added = pair.called.events.iter().filter_map(|event| match event {
            RtcEvent::MediaAdded(media) => Some(media.mid),
            _ => None,
        });
        added.collect::<Vec<_>>() == sections
    });
    let sdp = offer.get("sdp").and_then(Value::as_str).unwrap();
    assert!(sdp.contains("msid:camera ") && sdp.contains("msid:screen "), "{sdp}");
}

#[test]
fn muted_section_is_inactive_for_the_peer() {
    let mut pair = Pair::new();
    let ([camera, _], pending, offer) = share(&mut pair.caller.rtc).unwrap();
    pair.negotiate(pending, &offer);
    for (is_muted, direction) in [(true, Direction::Inactive), (false, Direction::RecvOnly)] {
        let (pending, offer) = set_muted(&mut pair.caller.rtc, camera, is_muted).unwrap();
        pair.negotiate(pending, &offer);
        pair.run_until(|pair| pair.called.rtc.media(camera).unwrap().direction() == direction);
    }
}

#[test]
fn frames_of_two_devices_arrive_in_one_section() {
    let mut pair = Pair::new();
    let mut changes = pair.caller.rtc.sdp_api();
    let section = changes.add_media(MediaKind::Audio, Direction::SendOnly, None, None, None);
    let (offer, pending) = changes.apply().unwrap();
    pair.negotiate(pending, &json!({"type":"offer","sdp":offer.to_sdp_string()}));
    pair.run_until(|pair| pair.caller.rtc.is_connected() && pair.called.rtc.is_connected());
    for (number, device) in [b"first", b"other"].into_iter().enumerate() {
        let at = MediaTime::new(960 * number as u64, str0m::media::Frequency::FORTY_EIGHT_KHZ);
        write_frame(&mut pair.caller.rtc, section, (pair.now, at), device.to_vec()).unwrap();
        pair.run_until(|pair| {
            pair.called.events.iter().any(|event| matches!(event, RtcEvent::MediaData(data) if data.mid == section && *data.data == *device))
        });
    }
}
