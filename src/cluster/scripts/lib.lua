-- What the scripts share; it stands in front of each. KEYS[1] is the prefix of all keys, and a hash tag: one slot. KEYS[2]
-- is given by nodes that tell others outside what happens: there it is numbered.
--
-- A seat is "<node>.<conn> <arrival> <username>": who holds a client id, on which connection, since when, as whom.
local P, TOLD = KEYS[1], KEYS[2]
local LEASE = 8 -- seconds that a node may be silent

local function now()
  local time = redis.call('TIME')
  return tonumber(time[1]) + tonumber(time[2]) / 1000000
end

local function node_of(seat) return string.match(seat, '^[^.]+') end
local function conn_of(seat) return string.match(seat, '^[^ ]+') end
local function user_of(seat) return string.match(seat, '^[^ ]+ %d+ (.*)$') end

-- A node that is gone has no inbox, and none is made for it.
local function post(node, ...)
  redis.call('XADD', P .. 'inbox:' .. node, 'NOMKSTREAM', 'MAXLEN', '~', 100000, '*', ...)
end

-- To every node with members in the room.
local function tell(room, except, ...)
  for _, node in ipairs(redis.call('HKEYS', P .. 'on:' .. room)) do
    if node ~= except then post(node, ...) end
  end
end

-- Everybody in the room, for a node that has not followed it: client, seat, client, seat …
local function picture(room)
  return cjson.encode(redis.call('HGETALL', P .. 'room:' .. room))
end

local function add(room, client, seat)
  local node = node_of(seat)
  redis.call('HSET', P .. 'room:' .. room, client, seat)
  redis.call('HINCRBY', P .. 'on:' .. room, node, 1)
  redis.call('HINCRBY', P .. 'rooms', room, 1)
  redis.call('INCR', P .. 'members')
  redis.call('SADD', P .. 'seats:' .. node, room)
end

local function drop(room, client, seat)
  local node = node_of(seat)
  redis.call('HDEL', P .. 'room:' .. room, client)
  if redis.call('DECR', P .. 'members') <= 0 then redis.call('DEL', P .. 'members') end
  if redis.call('HINCRBY', P .. 'on:' .. room, node, -1) <= 0 then
    redis.call('HDEL', P .. 'on:' .. room, node)
    redis.call('SREM', P .. 'seats:' .. node, room)
  end
  if redis.call('HINCRBY', P .. 'rooms', room, -1) <= 0 then redis.call('HDEL', P .. 'rooms', room) end
end

-- What is told outside by the node that has made the call, each: room, number in that room, kind, client, username, why. The
-- numbers begin at 1 when a room is opened.
local told = {}
local function note(room, kind, client, seat, why)
  if not TOLD then return 0 end
  local number = redis.call('HINCRBY', TOLD, room, 1)
  told[#told + 1] = { room, number, kind, client or '', seat and user_of(seat) or '', why or '' }
  return number
end

-- What is told from now on has higher numbers.
local function at_least(room, number)
  if TOLD and tonumber(number) > tonumber(redis.call('HGET', TOLD, room) or 0) then redis.call('HSET', TOLD, room, number) end
end

local function is_open(room) return redis.call('HEXISTS', P .. 'rooms', room) == 1 end

-- Where nobody is in the room any more, it is over.
local function closes(room)
  if not TOLD or is_open(room) or redis.call('HEXISTS', TOLD, room) == 0 then return end
  note(room, 'closed')
  redis.call('HDEL', TOLD, room)
end

local function left(room, client, seat, except, why)
  local number = note(room, 'left', client, seat, why)
  tell(room, except, 'k', 'left', 'r', room, 'c', client, 'v', seat, 'q', number)
  drop(room, client, seat)
end
