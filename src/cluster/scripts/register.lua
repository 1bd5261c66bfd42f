-- A node connects. ARGV: node, run id of this Redis, its process, what others may know of it, its fingerprint,
-- whether it goes on from an entry of its inbox (1).
-- Returns: "known" or "new", the id of the last entry of its inbox, the rooms in which it has members, and what is known of
-- all nodes; or why it is refused: "taken" where another process has its name, "foreign" where another deployment is here.
begin_essential()
local node, run_id, process, facts, fingerprint, goes_on = unpack(ARGV)
if (redis.call('GET', PREFIX .. 'fingerprint') or fingerprint) ~= fingerprint then return { 'foreign', '', {}, {} } end
-- What Redis has stored before it was started is not true any more: the nodes know better, and state it again.
if redis.call('GET', PREFIX .. 'life') ~= run_id then
  for _, room in ipairs(redis.call('HKEYS', PREFIX .. 'rooms')) do
    redis.call('DEL', PREFIX .. 'room:' .. room, PREFIX .. 'on:' .. room)
  end
  for _, other in ipairs(redis.call('ZRANGE', PREFIX .. 'nodes', 0, -1)) do
    redis.call('DEL', PREFIX .. 'inbox:' .. other, PREFIX .. 'seats:' .. other)
  end
  redis.call('DEL', PREFIX .. 'rooms', PREFIX .. 'nodes', PREFIX .. 'closing', PREFIX .. 'pulse', PREFIX .. 'members',
    PREFIX .. 'told', PREFIX .. 'processes', PREFIX .. 'registrations', PREFIX .. 'ghosts')
  redis.call('SET', PREFIX .. 'life', run_id)
end
local time, holder = now(), redis.call('HGET', PREFIX .. 'processes', node)
shorten_leases(time)
local deadline = tonumber(redis.call('ZSCORE', PREFIX .. 'nodes', node) or 0)
local is_same = holder and process_of(holder) == process
if holder and not is_same and deadline > time then return { 'taken', '', {}, {} } end
local is_known = is_same and deadline > 0 and goes_on == '1' and redis.call('EXISTS', PREFIX .. 'inbox:' .. node) == 1
if not is_known then
  redis.call('DEL', PREFIX .. 'inbox:' .. node)
  if not is_same then redis.call('SREM', PREFIX .. 'closing', node) end
end
redis.call('ZADD', PREFIX .. 'nodes', time + LEASE, node)
redis.call('HSET', PREFIX .. 'processes', node, process .. ' ' .. facts)
redis.call('HDEL', PREFIX .. 'ghosts', node)
hold_fingerprint(fingerprint)
local hello = redis.call('XADD', PREFIX .. 'inbox:' .. node, '*', 'kind', 'hello')
redis.call('HSET', PREFIX .. 'registrations', node, hello)
return { is_known and 'known' or 'new', hello, redis.call('SMEMBERS', PREFIX .. 'seats:' .. node),
  redis.call('HVALS', PREFIX .. 'processes') }
