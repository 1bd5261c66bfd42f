//! The fields of a client's frame, still raw.

use serde::Deserialize;

use super::{fields::present, raw_json::RawJson};

/// Every field that some message has, still raw, so that a bad field does not hide the `id`.
#[derive(Debug, Default, Deserialize, PartialEq, Eq)]
pub(super) struct Envelope<'a> {
    #[serde(rename = "type", borrow, default, deserialize_with = "present")]
    pub(super) kind: Option<RawJson<'a>>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) id: Option<RawJson<'a>>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) ack: Option<RawJson<'a>>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) to: Option<RawJson<'a>>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) token: Option<RawJson<'a>>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) resume_token: Option<RawJson<'a>>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) last_seq: Option<RawJson<'a>>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) features: Option<RawJson<'a>>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) outcome: Option<RawJson<'a>>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) ms: Option<RawJson<'a>>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) path: Option<RawJson<'a>>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) peer: Option<RawJson<'a>>,
    #[serde(rename = "clientId", borrow, default, deserialize_with = "present")]
    pub(super) client_id: Option<RawJson<'a>>,
    #[serde(rename = "client_id", borrow, default, deserialize_with = "present")]
    pub(super) client_id_in_snake_case: Option<RawJson<'a>>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) offer: Option<RawJson<'a>>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) answer: Option<RawJson<'a>>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) candidate: Option<RawJson<'a>>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) data: Option<RawJson<'a>>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) ban_seconds: Option<RawJson<'a>>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) seconds: Option<RawJson<'a>>,
}

impl<'a> Envelope<'a> {
    /// The field with this name, where some message has it.
    pub(super) fn field(&mut self, name: &str) -> Option<&mut Option<RawJson<'a>>> {
        Some(match name.as_bytes() {
            b"type" => &mut self.kind,
            b"id" => &mut self.id,
            b"ack" => &mut self.ack,
            b"to" => &mut self.to,
            b"token" => &mut self.token,
            b"resume_token" => &mut self.resume_token,
            b"last_seq" => &mut self.last_seq,
            b"features" => &mut self.features,
            b"outcome" => &mut self.outcome,
            b"ms" => &mut self.ms,
            b"path" => &mut self.path,
            b"peer" => &mut self.peer,
            b"clientId" => &mut self.client_id,
            b"client_id" => &mut self.client_id_in_snake_case,
            b"offer" => &mut self.offer,
            b"answer" => &mut self.answer,
            b"candidate" => &mut self.candidate,
            b"data" => &mut self.data,
            b"ban_seconds" => &mut self.ban_seconds,
            b"seconds" => &mut self.seconds,
            _ => return None,
        })
    }
}
