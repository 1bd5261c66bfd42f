//! Acts on what a moderator asks for.

use super::{SessionServices, dispatch::Handled, member::Member};
use crate::{
    auth::permissions::CapabilitySet,
    limits::RefusalKind,
    metrics::{LimitKind, MessageOutcome, MessageType},
    moderation::ModerationRefusal,
    protocol::{ModerationRequest, RawJson, ServerMessage},
};

impl<D: SessionServices> Member<'_, D> {
    /// Acts on a request, or refuses it. What is done is answered once it is kept.
    // Rare: where it was inlined, each message took 2 % more instructions.
    #[cold]
    pub(super) fn moderate(
        &self,
        request: &ModerationRequest<'_>,
        id: Option<RawJson<'_>>,
    ) -> Handled {
        if !self.can.has_all(CapabilitySet::MODERATE) {
            let sentence = "Your token does not allow this: \"moderate\" is not in its permissions";
            let reply = self.context.encode_error("forbidden", sentence, id);
            return (MessageType::Other, MessageOutcome::Refused, Some(reply));
        }
        let action = request.as_str();
        let answer = ServerMessage::Moderated { action, id }.encode();
        let failure = ServerMessage::Error {
            message: "This applies, but would not outlast a restart; the server's log says why",
            code: "unavailable",
            id,
            retry: None,
            retry_after_ms: None,
            max_message_bytes: None,
        }
        .encode();
        let (room, moderator) = (&self.context.room, &self.membership.peer().username);
        let queue = self.queue.clone();
        match self.context.services.moderate(room, moderator, request, queue, answer, failure) {
            Ok(()) => {
                self.log_refusal(RefusalKind::Moderation(action));
                (MessageType::Other, MessageOutcome::Done, None)
            }
            Err(refusal) => {
                self.log_refusal(RefusalKind::ModerationRefused(refusal.code()));
                let outcome = match &refusal {
                    ModerationRefusal::TargetNotFound(_) => MessageOutcome::Refused,
                    ModerationRefusal::TooOften(_) | ModerationRefusal::RuleLimitReached(_) => {
                        self.context.metrics.record_limit(LimitKind::ModerationRules);
                        MessageOutcome::RateLimited
                    }
                };
                let reply = self.context.encode_refused_moderation(&refusal, id);
                (MessageType::Other, outcome, Some(reply))
            }
        }
    }
}
