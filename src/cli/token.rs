//! `signaling-server token`: prints an access token for a user, signed with `JWT_SECRET_KEY`.

use std::{error::Error, time::Duration};

use clap::Args;
use secrecy::ExposeSecret;
use serde_json::{Map, Value};

use super::{read_settings, terminal};
use crate::{auth::access_token::MintRequest, clock::unix_now, config::Environment, state};

/// What `token` accepts.
#[derive(Args)]
pub(super) struct TokenArguments {
    /// The user
    #[arg(long)]
    user: String,
    /// A room that the user may join, or the beginning of its name with `*`; again for more. Default: all
    #[arg(long)]
    room: Vec<String>,
    /// What the user may do: join, send, broadcast, moderate; with commas between them. Default: the first three
    #[arg(long, value_delimiter = ',')]
    can: Vec<String>,
    /// Whether media may go through TURN servers only: all or relay
    #[arg(long)]
    ice: Option<String>,
    /// The display name that the members of a room see
    #[arg(long)]
    name: Option<String>,
    /// How long the token is valid, in seconds. Default: ACCESS_TOKEN_EXPIRE_MINUTES
    #[arg(long)]
    seconds: Option<u64>,
}

/// Prints the token. Whether the user has an account is not checked here.
pub(super) fn run(
    TokenArguments { user, room, can, ice, name, seconds }: TokenArguments,
    environment: &Environment,
) -> Result<(), Box<dyn Error>> {
    let config = read_settings(environment)?;
    let list = |list: Vec<String>| (!list.is_empty()).then(|| Value::from(list));
    let fields = [
        ("rooms", list(room)),
        ("can", list(can)),
        ("ice", ice.map(Value::from)),
        ("name", name.map(Value::from)),
    ];
    let fields = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    let signaling = Some(fields.collect::<Map<_, _>>()).filter(|fields| !fields.is_empty());
    let request = MintRequest {
        username: user,
        lifetime: seconds.map(Duration::from_secs),
        signaling: signaling.map(Value::Object),
    };
    let (token, _) = state::access_tokens(&config.startup).mint(&request, unix_now())?;
    Ok(terminal::print(token.expose_secret())?)
}
