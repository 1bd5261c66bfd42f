//! Answers with a list of rooms: a page of it, or all of it in pieces.

use std::{
    cmp::Reverse,
    io,
    net::IpAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Json,
    body::{Body, HttpBody},
    extract::FromRequestParts,
    http::{HeaderMap, HeaderName, HeaderValue, header, request::Parts},
    response::{IntoResponse, Response},
};
use hyper::body::{Bytes, Frame, SizeHint};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde_json::json;
use tokio::{task::AbortHandle, time::sleep};
use url::form_urlencoded;

use super::error::{ApiError, FieldError};
use crate::state::{AnswerPermit, AppState, ListAudience, ListChunks, NoAnswerPermit, RoomList};

/// The most rooms in a page, and how many are in one that does not say.
const MAX_LIMIT: usize = 1000;

/// How long a client may take to read a complete list.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// How many rooms a page was taken from.
pub(super) const TOTAL_COUNT: HeaderName = HeaderName::from_static("x-total-count");

/// Which part of the list a client asks for. Without parameters it asks for all of it.
#[derive(Debug, Default)]
pub(super) struct ListQuery {
    limit: Option<usize>,
    after: Option<String>,
    /// For administrators only.
    search: Option<String>,
    order: ListOrder,
}

/// The order of a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum ListOrder {
    /// By name.
    #[default]
    Name,
    /// Most members first. For administrators only.
    Members,
}

impl<S: Sync> FromRequestParts<S> for ListQuery {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Self::parse(parts.uri.query().unwrap_or_default())
    }
}

impl ListQuery {
    /// Reads the parameters that it knows; an empty one is none.
    fn parse(query: &str) -> Result<Self, ApiError> {
        let mut asked = Self::default();
        let pairs = form_urlencoded::parse(query.as_bytes());
        for (name, value) in pairs.filter(|(_, value)| !value.is_empty()) {
            match &*name {
                "limit" => asked.limit = Some(checked_limit(&value)?),
                "after" => asked.after = Some(value.into_owned()),
                "search" => asked.search = Some(value.to_lowercase()),
                "sort" => asked.order = checked_order(&value)?,
                _ => {}
            }
        }
        Ok(asked)
    }

    /// The same without what only administrators may ask for.
    pub(super) fn for_users(self) -> Self {
        Self { search: None, order: ListOrder::Name, ..self }
    }

    /// Whether a part of the list is asked for.
    pub(super) fn is_page(&self) -> bool {
        let Self { limit, after, search, order } = self;
        limit.is_some() || after.is_some() || search.is_some() || *order != ListOrder::Name
    }

    /// The answer with the part of `list` that is asked for, of which each room is shown by `body`.
    pub(super) fn answer<B: Serialize>(
        &self,
        list: &RoomList,
        body: impl Fn(&Arc<str>, usize) -> B,
    ) -> Response {
        let page = self.page(list);
        let rooms: Vec<_> = page.rooms.iter().map(|(room, members)| body(room, *members)).collect();
        let mut headers = HeaderMap::new();
        headers.insert(TOTAL_COUNT, page.total.into());
        let next = page.next.map(|after| self.link_to(&after));
        if let Some(Ok(link)) = next.map(HeaderValue::try_from) {
            headers.insert(header::LINK, link);
        }
        (headers, Json(rooms)).into_response()
    }

    fn page<'a>(&self, list: &'a RoomList) -> Page<'a> {
        let is_found =
            |room: &str| self.search.as_ref().is_none_or(|text| room.to_lowercase().contains(text));
        let mut found: Vec<_> = list.rooms.iter().filter(|(room, _)| is_found(room)).collect();
        let total = found.len();
        if self.order == ListOrder::Members {
            found.sort_by_key(|(room, members)| (Reverse(*members), room));
        }
        let first = match (self.order, &self.after) {
            (_, None) => 0,
            (ListOrder::Name, Some(after)) => found.partition_point(|(room, _)| **room <= **after),
            (ListOrder::Members, Some(after)) => {
                let (members, name) = after.split_once(':').unwrap_or_default();
                let last = (Reverse(members.parse().unwrap_or(usize::MAX)), name);
                found.partition_point(|(room, members)| (Reverse(*members), &**room) <= last)
            }
        };
        let limit = self.limit.unwrap_or(MAX_LIMIT);
        let mut rooms = found.split_off(first.min(total));
        let has_more = rooms.len() > limit;
        rooms.truncate(limit);
        let cursor = |(room, members): &(Arc<str>, usize)| match self.order {
            ListOrder::Name => room.to_string(),
            ListOrder::Members => format!("{members}:{room}"),
        };
        let next = rooms.last().filter(|_| has_more).map(|last| cursor(last));
        Page { rooms, total, next }
    }

    /// The `Link` to the page after this one (RFC 8288), relative to its own URL.
    fn link_to(&self, after: &str) -> String {
        let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let limit = self.limit.unwrap_or(MAX_LIMIT);
        let mut query = format!("limit={limit}&after={}", encoded(after));
        if let Some(search) = &self.search {
            query.push_str(&format!("&search={}", encoded(search)));
        }
        if self.order == ListOrder::Members {
            query.push_str("&sort=connected_users");
        }
        format!("<?{query}>; rel=\"next\"")
    }
}

/// Some rooms of a list.
struct Page<'a> {
    rooms: Vec<&'a (Arc<str>, usize)>,
    /// How many there are in all pages.
    total: usize,
    /// The cursor of the next page.
    next: Option<String>,
}

fn checked_limit(text: &str) -> Result<usize, ApiError> {
    let limit = text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
    limit.ok_or_else(|| {
        fault("limit", "int_parsing", "Input should be a whole number from 1 to 1000")
    })
}

fn checked_order(text: &str) -> Result<ListOrder, ApiError> {
    match text {
        "room_id" => Ok(ListOrder::Name),
        "connected_users" => Ok(ListOrder::Members),
        _ => Err(fault("sort", "enum", "Input should be \"room_id\" or \"connected_users\"")),
    }
}

fn fault(name: &'static str, kind: &'static str, msg: &str) -> ApiError {
    let loc = vec![json!("query"), json!(name)];
    ApiError::Invalid(vec![FieldError { kind, loc, msg: msg.to_owned() }])
}

/// The answer with the complete list, in which `body` shows each room: the same for all who ask within a second.
///
/// # Errors
///
/// Redis cannot be reached, or too many complete lists are being sent.
pub(super) async fn complete_list<B: Serialize>(
    app: &AppState,
    address: IpAddr,
    audience: ListAudience,
    body: impl Fn(&Arc<str>, usize) -> B + Send + 'static,
) -> Result<Response, ApiError> {
    let mut list = app.room_list().await?;
    let mut permit = None;
    if !list.is_short() {
        permit = Some(app.room_lists.permit(address).await?);
        list = app.room_list().await?;
    }
    // Off the workers, which serve calls: the list may be long.
    let encode = move || {
        let encode_room = |room: &Arc<str>, members| {
            #[expect(clippy::expect_used, reason = "strings and numbers")]
            serde_json::to_string(&body(room, members)).expect("a room can be written")
        };
        list.chunks(audience, encode_room)
    };
    let chunks = tokio::task::spawn_blocking(encode).await;
    let chunks = chunks.map_err(|error| ApiError::Internal(error.into()))?;
    let json = HeaderValue::from_static("application/json");
    Ok(([(header::CONTENT_TYPE, json)], Body::new(ListBody::new(chunks, permit))).into_response())
}

impl From<NoAnswerPermit> for ApiError {
    fn from(NoAnswerPermit: NoAnswerPermit) -> Self {
        Self::TooManyLists
    }
}

/// A complete list on its way to one client. What it needs of it is given back when it is sent, and at the latest after
/// [`SEND_TIMEOUT`]: a client that does not read holds no list.
struct ListBody {
    transfer: Arc<Mutex<Option<Transfer>>>,
    next: usize,
    remaining: u64,
    deadline: AbortHandle,
}

struct Transfer {
    chunks: ListChunks,
    _permit: Option<AnswerPermit>,
}

impl ListBody {
    fn new(chunks: ListChunks, permit: Option<AnswerPermit>) -> Self {
        let remaining = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        let transfer = Arc::new(Mutex::new(Some(Transfer { chunks, _permit: permit })));
        let late = transfer.clone();
        let deadline = tokio::spawn(async move {
            sleep(SEND_TIMEOUT).await;
            end(&late);
        });
        Self { transfer, next: 0, remaining, deadline: deadline.abort_handle() }
    }
}

fn lock(transfer: &Mutex<Option<Transfer>>) -> MutexGuard<'_, Option<Transfer>> {
    transfer.lock().unwrap_or_else(PoisonError::into_inner)
}

fn end(transfer: &Mutex<Option<Transfer>>) {
    let ended = lock(transfer).take();
    drop(ended);
}

impl HttpBody for ListBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.remaining == 0 {
            return Poll::Ready(None);
        }
        let chunk = lock(&self.transfer)
            .as_ref()
            .and_then(|transfer| transfer.chunks.get(self.next).cloned());
        let Some(chunk) = chunk else {
            return Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())));
        };
        self.next += 1;
        self.remaining -= chunk.len() as u64;
        if self.remaining == 0 {
            end(&self.transfer);
        }
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.remaining == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining)
    }
}

impl Drop for ListBody {
    fn drop(&mut self) {
        self.deadline.abort();
        end(&self.transfer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list() -> RoomList {
        let rooms = [("Zimmer/7 é", 3), ("attic", 1), ("cellar", 3), ("den", 2)];
        let rooms = rooms.map(|(room, members)| (Arc::from(room), members));
        RoomList::from(rooms.to_vec())
    }

    fn page(query: &str) -> (Vec<String>, usize, Option<String>) {
        let (list, query) = (list(), ListQuery::parse(query).unwrap());
        let page = query.page(&list);
        let rooms = page.rooms.iter().map(|(room, _)| room.to_string()).collect();
        (rooms, page.total, page.next.map(|after| query.link_to(&after)))
    }

    #[test]
    fn pages_follow_each_other_without_gap_or_repetition_in_both_orders() {
        for (sort, expected) in [
            ("room_id", ["Zimmer/7 é", "attic", "cellar", "den"]),
            ("connected_users", ["Zimmer/7 é", "cellar", "den", "attic"]),
        ] {
            for limit in 1..=5 {
                let mut query = format!("limit={limit}&sort={sort}");
                let mut seen = Vec::new();
                loop {
                    let (rooms, total, next) = page(&query);
                    assert_eq!(total, 4);
                    seen.extend(rooms);
                    let Some(next) = next else { break };
                    let link = next.strip_prefix("<?").unwrap();
                    link.strip_suffix(">; rel=\"next\"").unwrap().clone_into(&mut query);
                }
                assert_eq!(seen, expected, "{limit} {sort}");
            }
        }
    }

    #[test]
    fn a_cursor_need_not_be_a_room_that_still_exists() {
        assert_eq!(page("after=b").0, ["cellar", "den"]);
        assert_eq!(page("sort=connected_users&after=3:b").0, ["cellar", "den", "attic"]);
        assert_eq!(page("after=e").0, [] as [String; 0]);
    }

    #[test]
    fn a_search_ignores_case_and_counts_what_it_finds() {
        assert_eq!(page("search=T&limit=1"), (vec!["attic".into()], 1, None));
        assert_eq!(page("search=E&limit=1").1, 3);
        assert!(
            page("search=E&limit=2").2.unwrap().ends_with("&after=cellar&search=e>; rel=\"next\"")
        );
        assert_eq!(page("search=7%20%C3%89").0, ["Zimmer/7 é"]);
    }

    #[test]
    fn what_is_no_page_is_the_complete_list_and_wrong_parameters_are_refused() {
        for all in ["", "limit=&after=", "x=1", "a=%ff&&=", "sort=room_id"] {
            assert!(!ListQuery::parse(all).unwrap().is_page(), "{all}");
        }
        assert!(!ListQuery::parse("search=a&sort=connected_users").unwrap().for_users().is_page());
        for wrong in ["limit=0", "limit=1001", "limit=-1", "limit=x", "sort=age"] {
            assert!(matches!(ListQuery::parse(wrong), Err(ApiError::Invalid(_))), "{wrong}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_that_is_not_read_in_time_is_given_up() {
        let chunks: ListChunks = [Bytes::from_static(b"[1,"), Bytes::from_static(b"2]")].into();
        let mut body = Box::pin(ListBody::new(chunks.clone(), None));
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(matches!(body.as_mut().poll_frame(&mut context), Poll::Ready(Some(Ok(_)))));
        assert_eq!((body.size_hint().exact(), Arc::strong_count(&chunks)), (Some(2), 2));

        sleep(SEND_TIMEOUT + Duration::from_secs(1)).await;

        assert_eq!(Arc::strong_count(&chunks), 1, "nothing is held any more");
        assert!(matches!(body.as_mut().poll_frame(&mut context), Poll::Ready(Some(Err(_)))));
    }
}
