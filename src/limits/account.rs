//! What counts as one account.

use std::{net::IpAddr, sync::Arc};

use super::address_key;

/// Whom a limit on each account counts: a user, or all guests of one address together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AccountKey {
    /// The user of this name.
    User(Arc<str>),
    /// Every guest of this address.
    GuestsOf(IpAddr),
}

impl AccountKey {
    /// The account of a client at `address`.
    pub fn new(username: &Arc<str>, is_guest: bool, address: IpAddr) -> Self {
        if is_guest { Self::GuestsOf(address_key(address)) } else { Self::User(username.clone()) }
    }
}
