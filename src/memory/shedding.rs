//! Which holders are disconnected where an account holds more than its share, or all together too much of the budget.

use std::sync::Arc;

use super::budget::{MemoryBudget, MemoryHolder};

/// A holder with less than this, in bytes, is not shed: it would free nothing worth a connection.
const MIN_SHED: usize = 4 << 10;

/// Holders that differ by less than this, in bytes, count as equally large: among them those are shed that have been there for
/// longest. A client that is just connecting is not shed for others that hold a little less, and stay.
const SIZE_STEP: usize = 64 << 10;

impl MemoryBudget {
    /// Sheds the largest holders of each account that holds more than its share, then the largest of all while more than
    /// 80 % of the budget is held. Returns how many were shed.
    pub fn shed_excess(&self) -> usize {
        let accounts = self.all_accounts();
        let over_share = accounts.iter().filter(|account| account.held() > account.share);
        let mut shed: usize = over_share
            .map(|account| shed_largest(account.holders(), account.held(), account.share))
            .sum();
        if self.held() > self.state.high_mark() {
            let all = accounts.iter().flat_map(|account| account.holders()).collect();
            // Somewhat below the mark, so that not every further byte has to look for the largest.
            shed += shed_largest(all, self.held(), self.state.high_mark() / 16 * 15);
        }
        shed
    }

    /// Whether an account or all together still hold too much.
    pub(super) fn has_excess(&self) -> bool {
        self.held() > self.state.high_mark()
            || self.all_accounts().iter().any(|account| account.held() > account.share)
    }
}

/// Sheds the largest of `holders`, which hold `held` bytes together, until at most `target` are left; how many.
fn shed_largest(mut holders: Vec<Arc<MemoryHolder>>, held: usize, target: usize) -> usize {
    // What these hold is freed when their connections have ended.
    let leaving = holders.iter().filter(|holder| holder.is_shed()).map(|holder| holder.held());
    let mut left = held.saturating_sub(leaving.sum());
    if left <= target {
        return 0;
    }
    holders.retain(|holder| !holder.is_shed() && holder.held() >= MIN_SHED);
    // Stable: the holders of an account are in the order in which they came.
    holders.sort_by_key(|holder| std::cmp::Reverse(holder.held() / SIZE_STEP));
    let mut count = 0;
    for holder in holders {
        if left <= target {
            break;
        }
        let bytes = holder.held();
        if holder.shed() {
            left = left.saturating_sub(bytes);
            count += 1;
        }
    }
    count
}
