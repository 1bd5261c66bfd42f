//! What a replay buffer keeps, drops and replays.

use super::*;

fn seqs(frames: &VecDeque<ByteString>) -> Vec<u64> {
    frames.iter().map(|frame| frame.parse().unwrap()).collect()
}

/// A buffer of frames whose text is their sequence number.
fn buffer_of(count: usize) -> ReplayBuffer {
    let mut replay = ReplayBuffer::new(1);
    for seq in 1..=count {
        assert_eq!(replay.push(seq.to_string().into()), Ok(seq as u64));
    }
    replay
}

#[test]
fn a_resume_replays_exactly_the_frames_after_the_last_received() {
    for received in 0..=5 {
        let mut replay = buffer_of(5);

        assert_eq!(seqs(&replay.resume_after(received).unwrap()), Vec::from_iter(received + 1..=5));
        assert_eq!(replay.push("6".into()), Ok(6));
    }
}

#[test]
fn an_acknowledged_frame_is_neither_kept_nor_replayed() {
    let mut replay = buffer_of(5);

    replay.acknowledge(3);

    assert_eq!(replay.frames.len(), 2);
    assert_eq!(replay.resume_after(2), Err(ReplayGap));
    assert_eq!(seqs(&replay.resume_after(3).unwrap()), [4, 5]);
    replay.acknowledge(u64::MAX);
    assert_eq!((replay.frames.len(), replay.bytes), (0, 0));
    assert_eq!(seqs(&replay.resume_after(5).unwrap()), [] as [u64; 0]);
}

#[test]
fn a_resume_after_a_frame_that_was_never_sent_is_a_gap() {
    let mut replay = buffer_of(5);

    assert_eq!(replay.resume_after(6), Err(ReplayGap));
    assert_eq!(replay.resume_after(u64::MAX), Err(ReplayGap));
}

#[test]
fn a_client_that_never_acknowledges_costs_a_bounded_amount() {
    let mut replay = buffer_of(REPLAY_MAX_FRAMES + 10);
    assert_eq!(replay.frames.len(), REPLAY_MAX_FRAMES);
    assert_eq!(replay.resume_after(9), Err(ReplayGap));
    assert_eq!(replay.resume_after(10).unwrap().len(), REPLAY_MAX_FRAMES);

    let large = ByteString::from("x".repeat(REPLAY_MAX_BYTES / 4));
    for _ in 0..10 {
        replay.push(large.clone()).unwrap();
        assert!(replay.bytes <= REPLAY_MAX_BYTES);
    }
}

#[test]
fn a_detached_client_misses_no_frame_or_its_membership_ends() {
    let mut replay = buffer_of(100);
    replay.mark_undelivered(3);

    // Frames that were written to the client make room for those that were not.
    for _ in 0..REPLAY_MAX_FRAMES - 3 {
        replay.push("later".into()).unwrap();
    }

    assert_eq!(replay.push("one too many".into()), Err(ReplayGap));
}

#[test]
fn frames_that_another_server_kept_meanwhile_come_last() {
    let (mut replay, mut later) = (buffer_of(3), ReplayBuffer::new(0));
    replay.mark_undelivered(1);
    for seq in 4..=5 {
        later.push(seq.to_string().into()).unwrap();
    }

    assert_eq!(replay.append(later.into_frames()), Ok(()));

    assert_eq!((replay.key(), replay.last_seq()), (1, 5));
    assert_eq!(seqs(&replay.resume_after(2).unwrap()), [3, 4, 5]);
}

#[test]
fn an_id_is_a_duplicate_only_after_the_client_has_resumed() {
    let mut replay = buffer_of(0);
    for id in ["1", "1"] {
        assert!(!replay.is_duplicate_id(id));
        replay.note_relayed_id(id);
    }

    replay.resume_after(0).unwrap();

    assert!(replay.is_duplicate_id("1") && !replay.is_duplicate_id("2"));
    replay.note_relayed_id("2");
    assert!(!replay.is_duplicate_id("2"));
    for number in 0..MAX_RELAYED_IDS {
        replay.note_relayed_id(&format!("many {number}"));
    }
    assert_eq!((replay.relayed_ids.len(), replay.is_duplicate_id("1")), (MAX_RELAYED_IDS, false));
}
