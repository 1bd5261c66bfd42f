-- Removes members of nodes that are not registered any more, and makes counts right that a lost key has made wrong, a few rooms at
-- a time. ARGV: where the sweep before this one has stopped in `rooms`, and where among all keys, each 0 to begin. Returns: where
-- this one stops in both, how many members and counts it has changed, and the webhook records.
begin_essential()
local changed, time = 0, now()

-- Rooms that no list names, for `rooms` was lost and no node with members there has noticed: recounted, they are like others.
local keys, of_rooms = redis.call('SCAN', ARGV[2], 'MATCH', PREFIX .. 'room:*', 'COUNT', KEYS_BATCH), #PREFIX + #'room:' + 1
for _, key in ipairs(keys[2]) do
  local room = string.sub(key, of_rooms)
  if redis.call('HEXISTS', PREFIX .. 'rooms', room) == 0 then changed = changed + recount(room) end
end

local scan = redis.call('HSCAN', PREFIX .. 'rooms', ARGV[1], 'COUNT', SWEEP_BATCH)
-- Whether something has been so for a lease: a node that knows better has had the time to state it.
local function has_lasted(name)
  local since = tonumber(redis.call('HGET', PREFIX .. 'ghosts', name) or time)
  -- Later than now: the clock was moved back.
  if since >= time then redis.call('HSET', PREFIX .. 'ghosts', name, string.format('%.3f', time)) end
  return time - since > LEASE
end
for i = 1, #scan[2], 2 do
  local room = scan[2][i]
  local stored = redis.call('HGETALL', PREFIX .. 'room:' .. room)
  for j = 1, #stored, 2 do
    local client, record = stored[j], stored[j + 1]
    local node = node_of(record)
    if not redis.call('ZSCORE', PREFIX .. 'nodes', node) and has_lasted(node) then
      leave(room, client, record, node, 'node_lost')
      changed = changed + 1
    end
  end
  if #stored > 0 then
    redis.call('HDEL', PREFIX .. 'ghosts', 'room:' .. room)
    changed = changed + recount(room)
    close_if_empty(room)
  elseif has_lasted('room:' .. room) then
    redis.call('HDEL', PREFIX .. 'ghosts', 'room:' .. room)
    changed = changed + recount(room)
    close_if_empty(room)
  end
end
if scan[1] == '0' then
  local members = 0
  for _, count in ipairs(redis.call('HVALS', PREFIX .. 'rooms')) do members = members + tonumber(count) end
  if members == 0 then redis.call('DEL', PREFIX .. 'members') else redis.call('SET', PREFIX .. 'members', members) end
end
return { scan[1], keys[1], changed, encode_webhook_records() }
