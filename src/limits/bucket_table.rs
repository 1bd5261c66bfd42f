//! A token bucket for each of many keys.

use std::{collections::HashMap, hash::Hash, time::Duration};

use tokio::time::Instant;

use super::{
    MAX_TABLE_ENTRIES,
    token_bucket::{BucketSize, TokenBucket},
};

/// The buckets that are not full, by key.
pub(super) struct BucketTable<K> {
    /// Nothing where there is no limit.
    pub(super) size: Option<BucketSize>,
    buckets: HashMap<K, TokenBucket>,
}

impl<K> Default for BucketTable<K> {
    fn default() -> Self {
        Self { size: None, buckets: HashMap::new() }
    }
}

impl<K: Eq + Hash> BucketTable<K> {
    /// How long until `key` has a token.
    pub(super) fn wait(&self, key: &K, now: Instant) -> Duration {
        match (self.size, self.buckets.get(key)) {
            (Some(size), Some(bucket)) => bucket.wait(size, now),
            (Some(_), None) | (None, _) => Duration::ZERO,
        }
    }

    /// Takes a token of `key`, and says whether there was one.
    pub(super) fn take(&mut self, key: K, now: Instant) -> bool {
        let Some(size) = self.size else { return true };
        if self.buckets.len() >= MAX_TABLE_ENTRIES {
            self.evict_full(now);
            if self.buckets.len() > MAX_TABLE_ENTRIES / 2 {
                self.buckets.clear();
            }
        }
        self.buckets.entry(key).or_insert_with(|| TokenBucket::full(size, now)).take(size, now)
    }

    /// Drops buckets that are full again.
    pub(super) fn evict_full(&mut self, now: Instant) {
        let Some(size) = self.size else { return self.buckets.clear() };
        self.buckets.retain(|_, bucket| !bucket.is_full(size, now));
        self.buckets.shrink_to_fit();
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.buckets.len()
    }
}

/// Takes a token for `one` and a token for `other`, each from its table, or none.
///
/// # Errors
///
/// How long to wait until both have one.
pub(super) fn take_both<A: Clone + Eq + Hash, B: Clone + Eq + Hash>(
    (ones, one): (&mut BucketTable<A>, &A),
    (others, other): (&mut BucketTable<B>, &B),
    now: Instant,
) -> Result<(), Duration> {
    let wait = ones.wait(one, now).max(others.wait(other, now));
    if !wait.is_zero() {
        return Err(wait);
    }
    ones.take(one.clone(), now);
    others.take(other.clone(), now);
    Ok(())
}
