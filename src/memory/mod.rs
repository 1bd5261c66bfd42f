//! The memory that the server holds for its clients, in bytes: counted by kind and by account, and kept within one budget
//! (`MEMORY_BUDGET_MIB`).
//!
//! - `available`: how much memory the process may use.
//! - `budget`: the counters, the accounts with their shares, and the charges.
//! - `shedding`: which holders are disconnected where too much is held.
//! - `guard`: the thread on which that is done.

mod available;
mod budget;
mod guard;
mod shedding;

pub use available::{available, default_budget, socket_capacity};
pub use budget::{
    Charge, Growth, MIN_ACCOUNT_SHARE, MIN_UNAUTHENTICATED_SHARE, MemoryAccount, MemoryBudget,
    MemoryHolder, MemoryKind, Shed,
};
pub use guard::start_guard;

/// Makes room for the next element of a list of which there is one for each room: most rooms have two members, and a list that
/// doubles has room for four.
pub fn reserve_for_next<T>(list: &mut Vec<T>) {
    if list.len() == list.capacity() {
        list.reserve_exact(1 + list.len() / 4);
    }
}

#[cfg(test)]
mod tests;
