//! Name lookups that pass on only addresses to which this server may connect.

use std::{io, net::IpAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::net::lookup_host;

use super::address::is_public;

/// Looks a name up anew for each connection, and passes on only public addresses, unless it `allows_private`: whatever the
/// name resolves to the next time, the client connects to an address that was checked.
#[derive(Clone, Copy, Debug)]
pub struct CheckedResolver {
    /// Whether addresses that are not public are passed on, too.
    pub allows_private: bool,
}

/// Why a name has no address to connect to.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// It is not known.
    #[error(transparent)]
    Lookup(#[from] io::Error),
    /// All its addresses are private; this is one of them.
    #[error("{0} is not public")]
    Private(IpAddr),
}

impl CheckedResolver {
    /// Whether a client may connect to this address.
    pub fn is_allowed(self, address: IpAddr) -> bool {
        self.allows_private || is_public(address)
    }
}

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let resolver = *self;
        Box::pin(async move {
            // The client puts in the port.
            let found = lookup_host((name.as_str(), 0)).await.map_err(ResolveError::from)?;
            let (allowed, private): (Vec<_>, Vec<_>) =
                found.partition(|address| resolver.is_allowed(address.ip()));
            match (allowed.is_empty(), private.first()) {
                (false, _) => Ok(Box::new(allowed.into_iter()) as Addrs),
                (true, Some(address)) => Err(ResolveError::Private(address.ip()).into()),
                (true, None) => Err(ResolveError::Lookup(io::ErrorKind::NotFound.into()).into()),
            }
        })
    }
}
