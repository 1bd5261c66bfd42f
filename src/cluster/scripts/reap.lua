-- The members of a node that is gone leave, a few rooms at a time. ARGV: node, "gone" where it says so itself.
-- Returns: whether there are more, and what is told outside.
local node = ARGV[1]
local deadline = redis.call('ZSCORE', P .. 'nodes', node)
if not deadline or (ARGV[2] ~= 'gone' and tonumber(deadline) > now()) then return { 0, told } end
local why = ARGV[2] == 'gone' and 'server_restarting' or 'node_lost'
for _, room in ipairs(redis.call('SRANDMEMBER', P .. 'seats:' .. node, 32)) do
  local members = redis.call('HGETALL', P .. 'room:' .. room)
  for i = 1, #members, 2 do
    if node_of(members[i + 1]) == node then left(room, members[i], members[i + 1], node, why) end
  end
  closes(room)
  -- Also where counts were wrong: the set must end.
  redis.call('SREM', P .. 'seats:' .. node, room)
  redis.call('HDEL', P .. 'on:' .. room, node)
end
if redis.call('EXISTS', P .. 'seats:' .. node) == 1 then return { 1, told } end
redis.call('ZREM', P .. 'nodes', node)
redis.call('SREM', P .. 'closing', node)
redis.call('DEL', P .. 'inbox:' .. node)
return { 0, told }
