//! The frames for a client that has no connection, in their order, without joins and leaves that later ones undo.

use std::collections::VecDeque;

use bytestring::ByteString;

use crate::protocol::{self, FrameSubject};

/// The frames that came for a client while it had no connection.
///
/// Signals are all kept. Of the joins and leaves of a client id at most one each is kept, and of its states the last,
/// so that peers that come and go do not use up the space. What is kept makes sense to the client: it leads to the same
/// members, every signal comes from one of them, and `connected_users` count them.
///
/// A peer that was there, left and joined again is seen to do both, since it is a new WebRTC endpoint: its signals until
/// then come before that, the later ones after. Another user who takes its client id is another peer, and changes nothing
/// of what is kept of the first.
#[derive(Clone, Default)]
pub(super) struct DeferredFrames {
    frames: VecDeque<DeferredFrame>,
    bytes: usize,
    /// How many members there were when the first join or leave came.
    users_before: Option<usize>,
}

#[derive(Clone)]
struct DeferredFrame {
    frame: ByteString,
    subject: FrameSubject,
    /// It stays, whatever follows: another user has had its client id since.
    is_settled: bool,
}

impl DeferredFrames {
    /// Adds a frame, in place of those that it makes superfluous.
    pub(super) fn push(&mut self, frame: ByteString) {
        let subject = FrameSubject::of(&frame);
        if self.users_before.is_none() {
            self.users_before = users_before(&frame, &subject);
        }
        if self.make_room_for(&subject) {
            self.bytes += frame.len();
            self.frames.push_back(DeferredFrame { frame, subject, is_settled: false });
        }
    }

    pub(super) fn len(&self) -> usize {
        self.frames.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn into_frames(self) -> impl Iterator<Item = ByteString> {
        let mut users = self.users_before.unwrap_or_default();
        self.frames.into_iter().map(move |DeferredFrame { frame, subject, .. }| {
            match subject {
                FrameSubject::Joined(..) => users += 1,
                FrameSubject::Left(..) => users = users.saturating_sub(1),
                FrameSubject::State(_) | FrameSubject::Signal(_) | FrameSubject::Other => {
                    return frame;
                }
            }
            protocol::with_connected_users(frame, users)
        })
    }

    /// Removes what a frame about `subject` replaces; whether that frame itself is needed.
    fn make_room_for(&mut self, subject: &FrameSubject) -> bool {
        match subject {
            FrameSubject::Signal(_) | FrameSubject::Other => true,
            FrameSubject::State(id) => {
                self.remove(|it| is_state_of(it, id));
                true
            }
            FrameSubject::Joined(id, username) => self.make_room_for_join(id, username),
            FrameSubject::Left(id, _) => self.make_room_for_leave(id),
        }
    }

    fn make_room_for_join(&mut self, id: &str, username: &str) -> bool {
        let is_other_user = |it: &FrameSubject| matches!(it, FrameSubject::Left(left, user) if **left == *id && **user != *username);
        if self.position(is_other_user).is_some() {
            self.settle(id);
        }
        if self.position(|it| is_join_of(it, id)).is_none() {
            return true;
        }
        // The client had not heard of the peer before, which is there still, or again.
        self.remove(|it| is_leave_of(it, id));
        false
    }

    fn make_room_for_leave(&mut self, id: &str) -> bool {
        self.remove(|it| is_state_of(it, id));
        let Some(joined_at) = self.position(|it| is_join_of(it, id)) else {
            self.remove(|it| is_leave_of(it, id));
            return true;
        };
        if self.position(|it| is_leave_of(it, id)).is_some_and(|left_at| left_at < joined_at) {
            // The client knew the peer: it hears once that it is gone.
            self.remove(|it| is_join_of(it, id));
            self.remove(|it| is_leave_of(it, id));
            return true;
        }
        // The client had not heard of the peer, and need not, unless it receives a signal from it.
        let is_heard = self
            .frames
            .iter()
            .skip(joined_at)
            .any(|later| matches!(&later.subject, FrameSubject::Signal(from) if **from == *id));
        if !is_heard {
            self.remove(|it| is_join_of(it, id));
        }
        is_heard
    }

    /// What is kept of a client id stays as it is.
    fn settle(&mut self, id: &str) {
        for deferred in &mut self.frames {
            let subject = &deferred.subject;
            deferred.is_settled |= is_join_of(subject, id) || is_leave_of(subject, id);
        }
    }

    fn position(&self, is_meant: impl Fn(&FrameSubject) -> bool) -> Option<usize> {
        self.frames.iter().position(|deferred| !deferred.is_settled && is_meant(&deferred.subject))
    }

    fn remove(&mut self, is_meant: impl Fn(&FrameSubject) -> bool) {
        if let Some(removed) = self.position(is_meant).and_then(|index| self.frames.remove(index)) {
            self.bytes -= removed.frame.len();
        }
    }
}

fn is_join_of(subject: &FrameSubject, id: &str) -> bool {
    matches!(subject, FrameSubject::Joined(joined, _) if **joined == *id)
}

fn is_leave_of(subject: &FrameSubject, id: &str) -> bool {
    matches!(subject, FrameSubject::Left(left, _) if **left == *id)
}

fn is_state_of(subject: &FrameSubject, id: &str) -> bool {
    matches!(subject, FrameSubject::State(peer) if **peer == *id)
}

/// How many members there were before a join or leave.
fn users_before(frame: &str, subject: &FrameSubject) -> Option<usize> {
    match subject {
        FrameSubject::Joined(..) => protocol::connected_users(frame)?.checked_sub(1),
        FrameSubject::Left(..) => protocol::connected_users(frame)?.checked_add(1),
        FrameSubject::State(_) | FrameSubject::Signal(_) | FrameSubject::Other => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn join(id: &str) -> ByteString {
        format!(r#"{{"type":"user_joined","client_id":"{id}"}}"#).into()
    }

    fn leave(id: &str) -> ByteString {
        format!(r#"{{"type":"user_left","client_id":"{id}"}}"#).into()
    }

    fn state(id: &str, state: &str) -> ByteString {
        format!(r#"{{"type":"peer_state","client_id":"{id}","state":"{state}"}}"#).into()
    }

    fn signal(id: &str) -> ByteString {
        format!(r#"{{"type":"offer","offer":1,"from":"{id}"}}"#).into()
    }

    fn kept(frames: &[ByteString]) -> Vec<ByteString> {
        let mut deferred = DeferredFrames::default();
        frames.iter().for_each(|frame| deferred.push(frame.clone()));
        let bytes = deferred.bytes();
        let kept: Vec<_> = deferred.into_frames().collect();
        assert_eq!(bytes, kept.iter().map(|frame| frame.len()).sum::<usize>());
        kept
    }

    #[test]
    fn joins_and_leaves_that_undo_each_other_are_not_kept() {
        let (j, l, s) = (|| join("a"), || leave("a"), || signal("a"));
        for (frames, expected) in [
            (vec![j()], vec![j()]),
            (vec![j(), l()], vec![]),
            (vec![l()], vec![l()]),
            // A peer that was replaced is still seen to be.
            (vec![l(), j()], vec![l(), j()]),
            (vec![l(), j(), l(), j(), l(), j()], vec![l(), j()]),
            (vec![l(), j(), l()], vec![l()]),
            // A signal of a peer that has come and gone comes between its join and its leave.
            (vec![j(), s(), l()], vec![j(), s(), l()]),
            (vec![j(), s(), l(), j(), s(), l()], vec![j(), s(), s(), l()]),
            (vec![j(), s(), l(), j()], vec![j(), s()]),
            (vec![s(), l(), j(), s()], vec![s(), l(), j(), s()]),
            (vec![l(), j(), s(), l(), j(), s()], vec![s(), l(), j(), s()]),
            (vec![l(), j(), s(), l()], vec![s(), l()]),
            (vec![j(), signal("b"), l()], vec![signal("b")]),
            (
                vec![state("a", "reconnecting"), state("a", "connected")],
                vec![state("a", "connected")],
            ),
            (vec![state("a", "reconnecting"), l()], vec![l()]),
        ] {
            assert_eq!(kept(&frames), expected, "{frames:?}");
        }
    }

    /// The three peers that there may be, and which of them are there.
    type Present = [bool; 3];

    fn count(frames: &[ByteString], wanted: &str) -> usize {
        frames.iter().filter(|frame| frame.contains(wanted)).count()
    }

    proptest! {
        #[test]
        fn what_is_kept_makes_sense_leads_to_the_same_members_and_has_every_signal(
            events in prop::collection::vec((0..3_usize, 0..3_u8, 0..2_usize), 0..60), present in any::<Present>()
        ) {
            // As rooms report them: a member that joins is not there yet, one that leaves is.
            let users = |present: &Present| 1 + present.iter().filter(|is_there| **is_there).count();
            // Who has each client id: at first the first user, later the one who joins.
            let mut owners = [0; 3];
            let report = |kind: &str, id: usize, user: usize, present: &Present| {
                let users = users(present);
                ByteString::from(format!(r#"{{"type":"{kind}","client_id":"{id}","username":"{user}","connected_users":{users}}}"#))
            };
            let (mut now, mut frames) = (present, Vec::new());
            for (id, event, user) in events {
                if event == 0 && now[id] {
                    frames.push(signal(&id.to_string()));
                }
                let was_there = now[id];
                if event > 0 && was_there {
                    now[id] = false;
                    frames.push(report("user_left", id, owners[id], &now));
                }
                if event == 2 || (event == 1 && !was_there) {
                    now[id] = true;
                    // A client id is another user's only after its first one has left.
                    owners[id] = if event == 2 { owners[id] } else { user };
                    frames.push(report("user_joined", id, owners[id], &now));
                }
            }

            let kept = kept(&frames);

            let mut seen = present;
            let mut seen_owners = [0; 3];
            for frame in &kept {
                let subject = FrameSubject::of(frame);
                let (FrameSubject::Joined(id, _) | FrameSubject::Left(id, _) | FrameSubject::Signal(id)) = &subject else { panic!() };
                let id = id.parse::<usize>().unwrap();
                match &subject {
                    FrameSubject::Joined(_, user) => {
                        prop_assert!(!std::mem::replace(&mut seen[id], true), "{:?}", kept);
                        seen_owners[id] = user.parse().unwrap();
                    }
                    FrameSubject::Left(_, user) => {
                        prop_assert!(std::mem::replace(&mut seen[id], false), "{:?}", kept);
                        prop_assert_eq!(user.parse::<usize>().unwrap(), seen_owners[id], "{:?}", kept);
                    }
                    _ => prop_assert!(seen[id], "{:?}", kept),
                }
                if let Some(counted) = protocol::connected_users(frame) {
                    prop_assert_eq!(counted, users(&seen));
                }
            }
            for id in 0..3 {
                prop_assert!(!now[id] || seen_owners[id] == owners[id], "{:?}", kept);
            }
            prop_assert_eq!(seen, now);
            prop_assert_eq!(count(&kept, "offer"), count(&frames, "offer"));
        }

        #[test]
        fn of_one_user_a_client_id_has_at_most_one_join_and_one_leave(
            events in prop::collection::vec(0..3_u8, 0..60), was_there in any::<bool>()
        ) {
            let (mut is_there, mut frames) = (was_there, Vec::new());
            for event in events {
                match (event, is_there) {
                    (0, true) => frames.push(signal("a")),
                    (0, false) => {}
                    (1, _) | (2, false) => {
                        frames.push(if is_there { leave("a") } else { join("a") });
                        is_there = !is_there;
                    }
                    (_, true) => frames.extend([leave("a"), join("a")]),
                    (_, false) => {}
                }
            }

            let kept = kept(&frames);

            prop_assert!(count(&kept, "joined") <= 1 && count(&kept, "left") <= 1, "{:?}", kept);
            prop_assert_eq!(count(&kept, "offer"), count(&frames, "offer"));
        }
    }
}
