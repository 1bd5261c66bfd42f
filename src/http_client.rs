//! HTTP requests that the programs send themselves: to the server on this machine, and to one whose clock is compared.
//! `address` and `resolver` keep requests away from private networks.

pub mod address;
mod local_server;
pub mod resolver;

use std::error::Error;

use reqwest::{Client, ClientBuilder, redirect::Policy};

pub use self::local_server::LocalServer;

/// A client that follows no redirect, and uses no proxy that the environment names.
pub fn direct() -> ClientBuilder {
    Client::builder().no_proxy().redirect(Policy::none())
}

/// The innermost cause of `error`, such as "Connection refused (os error 111)".
pub fn root_cause(error: &reqwest::Error) -> String {
    innermost(error).to_string()
}

fn innermost<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause
}
