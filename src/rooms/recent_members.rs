//! Which client ids were members of a room a short time ago: moderators may still make rules about them.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::time::Instant;

/// How long a client id is remembered.
const RETENTION: Duration = Duration::from_secs(600);

/// How many are remembered.
const CAPACITY: usize = 64;

/// The last client ids that have left, the newest at the end.
#[derive(Default)]
pub(super) struct RecentMembers(VecDeque<(Arc<str>, Instant)>);

impl RecentMembers {
    /// Notes that a member has left.
    pub(super) fn insert(&mut self, client_id: Arc<str>, now: Instant) {
        self.0.retain(|(id, left)| *id != client_id && is_recent(*left, now));
        if self.0.len() >= CAPACITY {
            self.0.pop_front();
        }
        self.0.push_back((client_id, now));
    }

    /// Whether a member with this client id has left a short time ago.
    pub(super) fn contains(&self, client_id: &str, now: Instant) -> bool {
        self.0.iter().any(|(id, left)| **id == *client_id && is_recent(*left, now))
    }
}

fn is_recent(left: Instant, now: Instant) -> bool {
    now.saturating_duration_since(left) < RETENTION
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_id_is_remembered_for_ten_minutes() {
        let (mut recent, now) = (RecentMembers::default(), Instant::now());
        recent.insert("bob".into(), now);

        assert!(recent.contains("bob", now + RETENTION - Duration::from_secs(1)));
        assert!(!recent.contains("bob", now + RETENTION));
        assert!(!recent.contains("carol", now));
    }

    #[test]
    fn the_last_sixty_four_are_remembered_and_one_that_leaves_again_and_again_pushes_out_none() {
        let (mut recent, now) = (RecentMembers::default(), Instant::now());
        recent.insert("first".into(), now);
        for _ in 0..1_000 {
            recent.insert("restless".into(), now);
        }
        assert!(recent.contains("first", now));

        for number in 0..CAPACITY {
            recent.insert(number.to_string().into(), now);
        }

        assert!(!recent.contains("first", now) && !recent.contains("restless", now));
        assert!(recent.contains("0", now) && recent.0.len() == CAPACITY);
    }
}
