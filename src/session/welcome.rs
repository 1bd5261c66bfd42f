//! A member's first frames: `auth_success` and `users_in_room`, or `resumed`.

use std::time::Duration;

use bytestring::ByteString;
use secrecy::SecretString;

use super::SessionContext;
use crate::{
    auth::permissions::Permissions,
    protocol::{GrantedPermissions, IceServer, MessageLimits, ServerMessage},
    rooms::{Peer, Resumed},
};

/// The contents of a member's first frames.
pub(super) struct Welcome {
    pub(super) ice_servers: Vec<IceServer>,
    /// The signed resume token.
    pub(super) resume_token: Option<SecretString>,
    /// What its token says that it allows.
    pub(super) permissions: Option<Box<Permissions>>,
}

/// What a client is told of the permissions of its token.
pub(super) fn granted(permissions: Option<&Permissions>) -> Option<GrantedPermissions<'_>> {
    permissions.map(|permissions| GrantedPermissions {
        rooms: permissions.rooms.as_deref(),
        can: permissions.can.names().collect(),
    })
}

/// The `iceTransportPolicy` that a client must use.
pub(super) fn ice_transport_policy(permissions: Option<&Permissions>) -> Option<&'static str> {
    permissions.filter(|permissions| permissions.is_relay_only).map(|_| "relay")
}

impl Welcome {
    /// `auth_success` for `peer`, whose token expires after `expires_in`.
    pub(super) fn auth_success<D>(
        &self,
        context: &SessionContext<D>,
        peer: &Peer,
        expires_in: Option<Duration>,
        limits: MessageLimits,
    ) -> ByteString {
        ServerMessage::AuthSuccess {
            user: &peer.username,
            client_id: &peer.client_id,
            message: "Authentication successful",
            expires_in: expires_in.map(|left| left.as_secs()),
            limits,
            ice_servers: &self.ice_servers,
            ice_transport_policy: ice_transport_policy(self.permissions.as_deref()),
            permissions: granted(self.permissions.as_deref()),
            resume_offer: self.resume_token.as_ref().map(|token| context.resume_offer(token)),
        }
        .encode()
    }

    /// `resumed` for `peer`. The frames that the client has not received are in its send queue.
    pub(super) fn resumed<D>(
        &self,
        context: &SessionContext<D>,
        peer: &Peer,
        resumed: &Resumed,
        limits: MessageLimits,
    ) -> ByteString {
        let others = resumed.others.iter();
        let users = others.map(|(peer, came_before)| peer.to_roster_entry(*came_before));
        ServerMessage::Resumed {
            client_id: &peer.client_id,
            replayed: resumed.replayed_frames,
            users: users.collect(),
            limits,
            ice_servers: &self.ice_servers,
            ice_transport_policy: ice_transport_policy(self.permissions.as_deref()),
            permissions: granted(self.permissions.as_deref()),
            resume_offer: self.resume_token.as_ref().map(|token| context.resume_offer(token)),
        }
        .encode()
    }
}
