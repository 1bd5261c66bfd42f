-- A client wants to join. ARGV: room, client, connection, username, capacity of the room, 1 for a guest (no guest is the user
-- of another connection), display name or nothing. Returns: admitted, taken, full, damaged, or
-- unknown where the node itself is not known (any more).
local room, client, connection, username, capacity, is_guest, name = unpack(ARGV)
local node = node_of(connection)
if not redis.call('ZSCORE', PREFIX .. 'nodes', node) then return 'unknown' end
local members = redis.call('HLEN', PREFIX .. 'room:' .. room)
local counted = tonumber(redis.call('HGET', PREFIX .. 'rooms', room) or 0)
-- A member was lost, and its node has not stated it again: how many there are is unknown.
if members < counted then return 'damaged' end
if members > counted then recount(room) end
local current = redis.call('HGET', PREFIX .. 'room:' .. room, client)
if current and (is_guest == '1' or username_of(current) ~= username) then return 'taken' end
if not current and redis.call('HLEN', PREFIX .. 'room:' .. room) >= tonumber(capacity) then return 'full' end
if SEQUENCES and not is_open(room) then number_event(room, 'opened') end
if current then
  leave(room, client, current, '', 'replaced')
  end_for_good(connection_of(current))
end
local record = connection .. ' ' .. redis.call('INCR', PREFIX .. 'arrivals') .. ' ' .. username
if name ~= '' then record = record .. '\n' .. name end
local sequence = number_event(room, 'joined', client, record)
post_to_room(room, node, 'kind', 'joined', 'room', room, 'client', client, 'record', record, 'sequence', sequence)
add(room, client, record)
post(node, 'kind', 'admitted', 'room', room, 'client', client, 'record', record, 'members', members_of(room),
  'webhooks', encode_webhook_records())
return 'admitted'
