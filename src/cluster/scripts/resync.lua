-- A node states its members of a room, exactly. ARGV: room; node; epoch that the node knows; number of the last webhook event
-- that it knows; "known" where this Redis has known of the members before, "new" where it is another one, "repair" where it
-- has lost some (then no member is removed: what is not stated may be about to join); the id that register.lua has returned;
-- and the members, a JSON array of objects with client_id and record. The node gets the member list through its inbox, and
-- which of its own members have lost their client id meanwhile.
-- Returns: 0 where the node is not known (any more), for nothing would remove what it states, and where it has registered
-- anew, for this was stated before and comes late; and the webhook records. There are none of members that only this Redis
-- has not known.
begin_essential()
local room, node, epoch, sequence, knowledge, registration, members = unpack(ARGV)
if not redis.call('ZSCORE', PREFIX .. 'nodes', node)
  or (redis.call('HGET', PREFIX .. 'registrations', node) or registration) ~= registration then
  return { 0, encode_webhook_records() }
end
local stated, is_news = cjson.decode(members), knowledge == 'known'
local record_of = {}
for _, member in ipairs(stated) do record_of[member.client_id] = member.record end
local stored = redis.call('HGETALL', PREFIX .. 'room:' .. room)
for i = 1, #stored, 2 do
  local client, record = stored[i], stored[i + 1]
  if node_of(record) == node and record_of[client] ~= record and knowledge ~= 'repair' then leave(room, client, record, node, 'lost') end
end
if not is_news and #stated > 0 then raise_sequence(room, sequence) end
for _, member in ipairs(stated) do
  local client, record = member.client_id, member.record
  local current = redis.call('HGET', PREFIX .. 'room:' .. room, client)
  if has_ended(connection_of(record)) then
    -- Perhaps the entry that said so is lost.
    post(node, 'kind', 'left', 'room', room, 'client', client, 'record', record)
  elseif not current then
    if is_news and not is_open(room) then number_event(room, 'opened') end
    local number = is_news and number_event(room, 'joined', client, record) or 0
    post_to_room(room, node, 'kind', 'joined', 'room', room, 'client', client, 'record', record, 'sequence', number)
    add(room, client, record)
  elseif current ~= record then
    post(node, 'kind', 'left', 'room', room, 'client', client, 'record', record)
  end
end
-- A client that joins from now on has joined later.
raise_epoch(epoch)
recount(room)
if #stated > 0 then
  post(node, 'kind', 'snapshot', 'room', room, 'epoch', redis.call('GET', PREFIX .. 'arrivals') or 0,
    'members', members_of(room))
end
close_if_empty(room)
return { 1, encode_webhook_records() }
