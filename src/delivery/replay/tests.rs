//! What a replay buffer keeps, drops and replays.

use super::*;

fn seqs(frames: &VecDeque<ByteString>) -> Vec<u64> {
    frames.iter().map(|frame| frame.parse().unwrap()).collect()
}

/// A buffer of frames that were sent, whose text is their sequence number.
fn buffer_of(count: usize) -> ReplayBuffer {
    let mut replay = ReplayBuffer::new(1);
    for seq in 1..=count {
        assert_eq!(replay.next_seq(), seq as u64);
        replay.push_sent(seq.to_string().into());
    }
    replay
}

fn resume(replay: &mut ReplayBuffer, last_seq: u64) -> Result<VecDeque<ByteString>, ReplayGap> {
    replay.resume_after(last_seq, &mut VecDeque::new())
}

#[test]
fn a_resume_replays_exactly_the_frames_after_the_last_received_under_their_numbers() {
    for received in 0..=5 {
        let mut replay = buffer_of(5);
        replay.defer("6".into()).unwrap();
        let mut queued = VecDeque::from(["7".into()]);

        let frames = replay.resume_after(received, &mut queued).unwrap();

        assert_eq!(seqs(&frames), Vec::from_iter(received + 1..=7));
        assert_eq!((replay.next_seq(), queued.len()), (received + 1, 0));
    }
}

#[test]
fn an_acknowledged_frame_is_neither_kept_nor_replayed() {
    let mut replay = buffer_of(5);

    replay.acknowledge(3);

    assert_eq!(replay.sent.len(), 2);
    assert_eq!(resume(&mut replay, 2), Err(ReplayGap));
    assert_eq!(seqs(&resume(&mut replay, 3).unwrap()), [4, 5]);
    replay.acknowledge(u64::MAX);
    assert_eq!((replay.sent.len(), replay.bytes()), (0, 0));
    assert_eq!(seqs(&resume(&mut replay, 3).unwrap()), [] as [u64; 0]);
}

#[test]
fn a_resume_after_a_frame_that_was_never_sent_is_a_gap_and_changes_nothing() {
    let mut replay = buffer_of(5);
    replay.defer("6".into()).unwrap();

    assert_eq!(resume(&mut replay, 6), Err(ReplayGap));
    assert_eq!(resume(&mut replay, u64::MAX), Err(ReplayGap));
    assert_eq!(seqs(&resume(&mut replay, 4).unwrap()), [5, 6]);
}

#[test]
fn a_client_that_never_acknowledges_costs_a_bounded_amount() {
    let mut replay = buffer_of(REPLAY_MAX_FRAMES + 10);
    assert_eq!(replay.sent.len(), REPLAY_MAX_FRAMES);
    assert_eq!(resume(&mut replay, 9), Err(ReplayGap));
    assert_eq!(resume(&mut replay, 10).unwrap().len(), REPLAY_MAX_FRAMES);

    let large = ByteString::from("x".repeat(REPLAY_MAX_BYTES / 4));
    for _ in 0..10 {
        replay.push_sent(large.clone());
        assert!(replay.bytes() <= REPLAY_MAX_BYTES);
    }
    replay.push_sent("x".repeat(2 * REPLAY_MAX_BYTES).into());
    assert_eq!(replay.bytes(), 0);
}

#[test]
fn a_resume_for_which_more_waits_than_may_be_kept_is_a_gap_and_changes_nothing() {
    let mut replay = buffer_of(5);
    let many = || VecDeque::from(vec![ByteString::from("x"); REPLAY_MAX_FRAMES]);
    let large = || VecDeque::from([ByteString::from("x".repeat(REPLAY_MAX_BYTES))]);

    for mut queued in [many(), large()] {
        let before = queued.len();
        assert_eq!(replay.resume_after(4, &mut queued), Err(ReplayGap));
        assert_eq!((queued.len(), replay.next_seq(), replay.sent.len()), (before, 6, 5));
    }
    assert_eq!(replay.resume_after(5, &mut many()).unwrap().len(), REPLAY_MAX_FRAMES);
}

#[test]
fn a_detached_client_misses_no_frame_or_its_membership_ends() {
    let mut replay = buffer_of(100);
    replay.mark_unwritten(3);

    // Frames that were written to the client make room for those that were not.
    for _ in 0..REPLAY_MAX_FRAMES - 3 {
        replay.defer("later".into()).unwrap();
    }

    assert_eq!(replay.defer("one too many".into()), Err(ReplayGap));
}

#[test]
fn members_that_come_and_go_cost_a_detached_client_no_resume() {
    let mut replay = buffer_of(3);
    for number in 0..10 * REPLAY_MAX_FRAMES {
        for kind in ["user_joined", "user_left"] {
            for id in ["always-the-same", &number.to_string()] {
                let frame = format!(r#"{{"type":"{kind}","client_id":"{id}"}}"#);
                assert_eq!(replay.defer(frame.into()), Ok(()));
            }
        }
    }

    assert_eq!(seqs(&resume(&mut replay, 1).unwrap()), [2, 3]);
}

#[test]
fn frames_that_another_server_kept_meanwhile_come_last() {
    let (mut replay, mut later) = (buffer_of(3), ReplayBuffer::new(0));
    replay.mark_unwritten(1);
    for seq in 4..=5 {
        later.defer(seq.to_string().into()).unwrap();
    }

    assert_eq!(replay.append(later.into_frames()), Ok(()));

    assert_eq!((replay.key(), replay.next_seq()), (1, 4));
    assert_eq!(seqs(&resume(&mut replay, 2).unwrap()), [3, 4, 5]);
}

#[test]
fn a_saved_buffer_continues_and_an_earlier_version_finds_all_frames_numbered() {
    let mut replay = buffer_of(3);
    replay.note_relayed_id("1");
    replay.mark_unwritten(1);
    for seq in 4..=5 {
        replay.defer(seq.to_string().into()).unwrap();
    }

    let saved = serde_json::to_value(&replay).unwrap();
    let mut restored: ReplayBuffer = serde_json::from_value(saved.clone()).unwrap();

    assert_eq!(
        (&saved["last"], &saved["unheard"], &saved["bytes"]),
        (&5.into(), &3.into(), &5.into())
    );
    assert_eq!(saved["frames"], serde_json::json!(["1", "2", "3", "4", "5"]));
    assert_eq!((restored.next_seq(), restored.unwritten, restored.deferred.len()), (4, 1, 2));
    assert_eq!(seqs(&resume(&mut restored, 2).unwrap()), [3, 4, 5]);
    assert!(restored.is_duplicate_id("1"));
}

/// As versions before this one wrote it: all frames are numbered, the client may have received some of them.
#[test]
fn a_buffer_of_an_earlier_version_replays_its_numbers() {
    let saved = r#"{"key":1,"frames":["4","5","6"],"bytes":3,"last":6,"unheard":5,"said":[],"said_before":0}"#;
    for last_seq in 3..=6 {
        let mut replay: ReplayBuffer = serde_json::from_str(saved).unwrap();
        replay.defer("7".into()).unwrap();

        assert_eq!(seqs(&resume(&mut replay, last_seq).unwrap()), Vec::from_iter(last_seq + 1..=7));
    }
    let mut replay: ReplayBuffer = serde_json::from_str(saved).unwrap();
    assert_eq!((replay.unwritten, resume(&mut replay, 2)), (2, Err(ReplayGap)));
}

#[test]
fn an_id_is_a_duplicate_only_after_the_client_has_resumed() {
    let mut replay = buffer_of(0);
    for id in ["1", "1"] {
        assert!(!replay.is_duplicate_id(id));
        replay.note_relayed_id(id);
    }

    resume(&mut replay, 0).unwrap();

    assert!(replay.is_duplicate_id("1") && !replay.is_duplicate_id("2"));
    replay.note_relayed_id("2");
    assert!(!replay.is_duplicate_id("2"));
    for number in 0..MAX_RELAYED_IDS {
        replay.note_relayed_id(&format!("many {number}"));
    }
    assert_eq!((replay.relayed_ids.len(), replay.is_duplicate_id("1")), (MAX_RELAYED_IDS, false));
}
