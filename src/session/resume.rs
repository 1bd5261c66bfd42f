//! Resuming: from a resume token to the membership that it stands for.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    Authorized, Credentials, SessionContext, SessionServices, detached::encode_context,
    member::MembershipId,
};
use crate::{
    auth::resume_token::ResumeToken,
    delivery::{ClientQueue, ResumeError},
    protocol::{ResumeRequest, TokenField},
    rooms::{ClaimError, Membership, Peer, Resumed},
};

const MEMBERSHIP_VOID: &str = "What that membership stood on no longer counts";

/// A membership that continues on this connection.
pub(super) struct ResumedMembership {
    pub(super) membership: Membership,
    pub(super) authorized: Authorized,
    pub(super) id: MembershipId,
    pub(super) resumed: Resumed,
}

/// Why a client could not resume.
pub(super) enum ResumeFailure {
    /// The sentence of the `error` frame. The client may join instead.
    Refused(String),
    /// The membership, or its account, was resumed too often; the client may resume after this time.
    TooOften(Duration),
    /// The state that the nodes of a cluster share cannot be reached.
    Unavailable,
}

/// Gives a client the membership of its resume token, where necessary from another server of the cluster.
pub(super) async fn resume<D: SessionServices>(
    context: &SessionContext<D>,
    request: &ResumeRequest<'_>,
    queue: &ClientQueue,
) -> Result<ResumedMembership, ResumeFailure> {
    let (token, last_seq, authorized) =
        verify_resume(context, request, queue).map_err(ResumeFailure::Refused)?;
    let account = authorized.account(context.address);
    context
        .joins
        .check_resume(&account, token.key, Instant::now())
        .map_err(ResumeFailure::TooOften)?;
    let client_id: Arc<str> = token.client_id.as_str().into();
    let peer = Peer {
        client_id: client_id.clone(),
        username: authorized.username.clone(),
        name: token.name.as_deref().map(Arc::from),
    };
    let (rooms, room, key) = (&context.rooms, &context.room, token.key);
    let resume_here =
        || Membership::resume(rooms, room, peer.clone(), key, queue.clone(), last_seq);
    let migration_context = encode_context(&token, context.limits.resume_window);
    queue.set_address(context.address);
    let membership = loop {
        match resume_here() {
            Err(ResumeError::Ended) => {}
            membership => break membership,
        }
        match Membership::claim(rooms, room, &client_id, key, migration_context.clone()).await {
            // It is here now, unless it left again for a server where its client was looked for before.
            Ok(()) => {}
            // Unless it arrived here during the claim.
            Err(ClaimError::Ended) => break resume_here(),
            Err(ClaimError::Unavailable) => return Err(ResumeFailure::Unavailable),
        }
    };
    // A member that was removed during the claim may have been between two servers, where it was not found.
    if membership.is_ok()
        && context.services.authorize(Credentials::ResumeToken(&token), queue).is_err()
    {
        return Err(ResumeFailure::Refused(MEMBERSHIP_VOID.into()));
    }
    let id = MembershipId { key, since: token.since };
    membership
        .map(|(membership, resumed)| ResumedMembership { membership, authorized, id, resumed })
        .map_err(|error| ResumeFailure::Refused(error.to_string()))
}

/// Checks whether the client may resume at all. Returns its token, the last frame that it has received and its
/// authorization, or the sentence of the error.
fn verify_resume<D: SessionServices>(
    context: &SessionContext<D>,
    request: &ResumeRequest<'_>,
    queue: &ClientQueue,
) -> Result<(ResumeToken, u64, Authorized), String> {
    let TokenField::Text(token) = &request.token else {
        return Err("Field \"resume_token\" must be a string".into());
    };
    let last_seq = request
        .last_seq
        .ok_or("Field \"last_seq\" must be the \"seq\" of the last frame that you got, or 0")?;
    let token =
        context.resume_tokens.verify(token).map_err(|_| "That resume token is not valid")?;
    if *token.room != *context.room {
        return Err("That resume token is for another room".into());
    }
    let authorized = context.services.authorize(Credentials::ResumeToken(&token), queue);
    let authorized = authorized.map_err(|_| MEMBERSHIP_VOID)?;
    if authorized.claims.as_ref().is_some_and(|claims| !claims.allow_membership(&token.room)) {
        return Err(MEMBERSHIP_VOID.into());
    }
    Ok((token, last_seq, authorized))
}
