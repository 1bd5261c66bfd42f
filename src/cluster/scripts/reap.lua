-- The members of a node that is gone leave, a few rooms at a time. ARGV: node, "gone" where it says so itself.
-- Returns: whether there are more, and the webhook records.
begin_essential()
local node, cause = unpack(ARGV)
local deadline = redis.call('ZSCORE', PREFIX .. 'nodes', node)
if not deadline or (cause ~= 'gone' and tonumber(deadline) > now()) then return { 0, encode_webhook_records() } end
local reason = cause == 'gone' and 'server_restarting' or 'node_lost'
for _, room in ipairs(redis.call('SRANDMEMBER', PREFIX .. 'seats:' .. node, REAP_BATCH)) do
  local members = redis.call('HGETALL', PREFIX .. 'room:' .. room)
  for i = 1, #members, 2 do
    local client, record = members[i], members[i + 1]
    if node_of(record) == node then leave(room, client, record, node, reason) end
  end
  close_if_empty(room)
  -- Also where counts were wrong: the set must end.
  redis.call('SREM', PREFIX .. 'seats:' .. node, room)
  redis.call('HDEL', PREFIX .. 'on:' .. room, node)
end
if redis.call('EXISTS', PREFIX .. 'seats:' .. node) == 1 then return { 1, encode_webhook_records() } end
redis.call('ZREM', PREFIX .. 'nodes', node)
redis.call('HDEL', PREFIX .. 'processes', node)
redis.call('HDEL', PREFIX .. 'registrations', node)
-- The next deployment need not wait.
if redis.call('EXISTS', PREFIX .. 'nodes') == 0 then redis.call('DEL', PREFIX .. 'fingerprint') end
redis.call('SREM', PREFIX .. 'closing', node)
redis.call('DEL', PREFIX .. 'inbox:' .. node)
return { 0, encode_webhook_records() }
