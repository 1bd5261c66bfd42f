//! Which of several Redis a room belongs to.

/// The number of the Redis, below `engines`, that a room belongs to: the same on every node and in every version. Few rooms
/// change where one is added.
///
/// Source: Lamping and Veach, "A Fast, Minimal Memory, Consistent Hash Algorithm".
pub(super) fn engine_of(room: &str, engines: usize) -> usize {
    // FNV-1a, for the hash of the standard library may change.
    let mut key = room.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let (mut bucket, mut next) = (0_usize, 0_usize);
    while next < engines {
        bucket = next;
        key = key.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "as in the paper"
        )]
        let jump =
            ((bucket + 1) as f64 * ((1_u64 << 31) as f64 / ((key >> 33) + 1) as f64)) as usize;
        next = jump;
    }
    bucket
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_rooms_move_where_an_engine_is_added() {
        let of = |engines| {
            (0..3_000)
                .map(move |room| engine_of(&format!("room {room}"), engines))
                .collect::<Vec<_>>()
        };
        let (two, three) = (of(2), of(3));

        for engine in 0..3 {
            let rooms = three.iter().filter(|other| **other == engine).count();
            assert!((850..1_150).contains(&rooms), "{rooms} on {engine}");
        }
        let moved: Vec<_> = two.iter().zip(&three).filter(|(two, three)| two != three).collect();
        assert!(moved.iter().all(|(_, three)| **three == 2), "they move to the new one alone");
    }
}
