-- What all scripts share; it stands in front of each, and in front of it the constants that Rust passes in: LEASE (seconds
-- that a node may be silent), INBOX_MAX_LEN (entries), REAP_BATCH (rooms). README.md says what each key and field is.
--
-- KEYS[1] is the prefix of all keys, and a hash tag: one slot. KEYS[2] is the hash that numbers webhook events; only nodes
-- that have webhooks give it, and without it nothing is numbered.
--
-- A record is "<node>.<key> <join order> <username>": the connection that has a client id, since when, and its user.
-- A display name follows in a line of its own.
local PREFIX, SEQUENCES = KEYS[1], KEYS[2]

local function now()
  local time = redis.call('TIME')
  return tonumber(time[1]) + tonumber(time[2]) / 1000000
end

local function node_of(record) return string.match(record, '^[^.]+') end
local function connection_of(record) return string.match(record, '^[^ ]+') end
local function username_of(record) return string.match(record, '^[^ ]+ %d+ ([^\n]*)') end

-- The process of an entry of `processes`: "<process> <what others may know of the node>".
local function process_of(holder) return string.match(holder, '^[^ ]+') end

-- The fingerprint of the deployment stands as long as the lease of its last node.
local function hold_fingerprint(fingerprint)
  redis.call('SET', PREFIX .. 'fingerprint', fingerprint, 'PX', string.format('%.0f', LEASE * 1000))
end

-- A change of members that comes from now on has a higher epoch than this.
local function raise_epoch(epoch)
  if tonumber(epoch) > tonumber(redis.call('GET', PREFIX .. 'arrivals') or 0) then
    redis.call('SET', PREFIX .. 'arrivals', string.format('%.0f', tonumber(epoch)))
  end
end

-- A clock that was moved back would make leases last for as long.
local function shorten_leases(time)
  for _, node in ipairs(redis.call('ZRANGEBYSCORE', PREFIX .. 'nodes', time + LEASE * 1.5, '+inf')) do
    redis.call('ZADD', PREFIX .. 'nodes', time + LEASE, node)
  end
end

-- Lets a script run also where Redis has no memory left. Redis refuses a command that may need some only as the first write
-- of a script (`scriptVerifyOOM` in its script.c), and this write needs none. What keeps the cluster true begins with it, and
-- what lets something in that is new does not: a full Redis must not look like one whose nodes are silent.
local function begin_essential() redis.call('DEL', PREFIX .. 'none') end

-- Adds an entry to the inbox of a node. A node that is gone has no inbox, and none is made for it. Nothing is ever trimmed
-- that was not read: heartbeat.lua drops what was.
local function post(node, ...)
  redis.call('XADD', PREFIX .. 'inbox:' .. node, 'NOMKSTREAM', '*', ...)
end

-- The same for every node; how many those are.
local function post_to_all(...)
  local nodes = redis.call('ZRANGE', PREFIX .. 'nodes', 0, -1)
  for _, node in ipairs(nodes) do post(node, ...) end
  return #nodes
end

-- Makes the counts of a room what its members add up to, where a key was lost; how many were wrong.
local function recount(room)
  local stored, nodes, wrong = redis.call('HGETALL', PREFIX .. 'room:' .. room), {}, 0
  for i = 2, #stored, 2 do
    local node = node_of(stored[i])
    nodes[node] = (nodes[node] or 0) + 1
  end
  local counted = redis.call('HGETALL', PREFIX .. 'on:' .. room)
  for i = 1, #counted, 2 do
    if not nodes[counted[i]] then
      redis.call('HDEL', PREFIX .. 'on:' .. room, counted[i])
      wrong = wrong + 1
    end
  end
  for node, members in pairs(nodes) do
    if tonumber(redis.call('HGET', PREFIX .. 'on:' .. room, node) or 0) ~= members then
      redis.call('HSET', PREFIX .. 'on:' .. room, node, members)
      wrong = wrong + 1
    end
    redis.call('SADD', PREFIX .. 'seats:' .. node, room)
  end
  if tonumber(redis.call('HGET', PREFIX .. 'rooms', room) or 0) ~= #stored / 2 then
    if #stored == 0 then redis.call('HDEL', PREFIX .. 'rooms', room)
    else redis.call('HSET', PREFIX .. 'rooms', room, #stored / 2) end
    wrong = wrong + 1
  end
  return wrong
end

-- The same where the list of a room's nodes was lost: no node would receive what happens there.
local function recount_if_lost(room)
  if redis.call('EXISTS', PREFIX .. 'on:' .. room) == 0 and redis.call('EXISTS', PREFIX .. 'room:' .. room) == 1 then
    recount(room)
  end
end

-- Adds an entry to the inbox of every node with members in the room but one.
local function post_to_room(room, except, ...)
  recount_if_lost(room)
  for _, node in ipairs(redis.call('HKEYS', PREFIX .. 'on:' .. room)) do
    if node ~= except then post(node, ...) end
  end
end

-- All members of the room, for a node that has not followed it: a JSON object, records by client id.
local function members_of(room)
  local flat, members = redis.call('HGETALL', PREFIX .. 'room:' .. room), {}
  for i = 1, #flat, 2 do members[flat[i]] = flat[i + 1] end
  return cjson.encode(members)
end

local function add(room, client, record)
  local node = node_of(record)
  redis.call('HSET', PREFIX .. 'room:' .. room, client, record)
  redis.call('HINCRBY', PREFIX .. 'on:' .. room, node, 1)
  redis.call('HINCRBY', PREFIX .. 'rooms', room, 1)
  redis.call('INCR', PREFIX .. 'members')
  redis.call('SADD', PREFIX .. 'seats:' .. node, room)
end

local function remove(room, client, record)
  local node = node_of(record)
  redis.call('HDEL', PREFIX .. 'room:' .. room, client)
  if redis.call('DECR', PREFIX .. 'members') <= 0 then redis.call('DEL', PREFIX .. 'members') end
  if redis.call('HINCRBY', PREFIX .. 'on:' .. room, node, -1) <= 0 then
    redis.call('HDEL', PREFIX .. 'on:' .. room, node)
    redis.call('SREM', PREFIX .. 'seats:' .. node, room)
  end
  if redis.call('HINCRBY', PREFIX .. 'rooms', room, -1) <= 0 then redis.call('HDEL', PREFIX .. 'rooms', room) end
end

-- Webhook events, which the node that has called the script sends. The numbers begin at 1 when a room is opened.
local webhook_records = {}
local function number_event(room, event, client, record, reason)
  if not SEQUENCES then return 0 end
  local sequence = redis.call('HINCRBY', SEQUENCES, room, 1)
  webhook_records[#webhook_records + 1] = {
    room = room, sequence = sequence, event = event, client_id = client or '',
    username = record and username_of(record) or '', reason = reason or '',
  }
  return sequence
end

-- All of them, as a JSON array.
local function encode_webhook_records()
  return #webhook_records == 0 and '[]' or cjson.encode(webhook_records)
end

-- Events of the room have higher numbers than this from now on.
local function raise_sequence(room, sequence)
  if SEQUENCES and tonumber(sequence) > tonumber(redis.call('HGET', SEQUENCES, room) or 0) then
    redis.call('HSET', SEQUENCES, room, sequence)
  end
end

local function is_open(room) return redis.call('HEXISTS', PREFIX .. 'rooms', room) == 1 end

-- A room without members is closed.
local function close_if_empty(room)
  if not SEQUENCES or is_open(room) or redis.call('HEXISTS', SEQUENCES, room) == 0 then return end
  number_event(room, 'closed')
  redis.call('HDEL', SEQUENCES, room)
end

-- The membership on a connection has ended for good. A node that does not know yet may still state it, and must not bring it
-- back (resync.lua): it has two leases to learn of it.
local function end_for_good(connection)
  redis.call('ZADD', PREFIX .. 'ended', string.format('%.3f', now() + 2 * LEASE), connection)
end

local function has_ended(connection) return redis.call('ZSCORE', PREFIX .. 'ended', connection) end

-- Removes a member and reports that to the nodes of the room but one.
local function leave(room, client, record, except, reason)
  local sequence = number_event(room, 'left', client, record, reason)
  post_to_room(room, except, 'kind', 'left', 'room', room, 'client', client, 'record', record, 'sequence', sequence)
  remove(room, client, record)
end
