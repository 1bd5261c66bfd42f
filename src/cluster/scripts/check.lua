-- Compares what a node knows of its members with what is stored. ARGV: node; then of each room its id, and the digest of the
-- members that the node has there. Returns: the rooms in which that differs, and those of which a key is missing, so that the
-- counts are not those of the stored members.
local node, different, damaged = ARGV[1], {}, {}
for i = 2, #ARGV, 2 do
  local room, digest = ARGV[i], ARGV[i + 1]
  local stored, sum, members = redis.call('HGETALL', PREFIX .. 'room:' .. room), 0, 0
  for j = 1, #stored, 2 do
    if node_of(stored[j + 1]) == node then
      members = members + 1
      sum = sum + tonumber(string.sub(redis.sha1hex(stored[j] .. ' ' .. stored[j + 1]), 1, 8), 16)
    end
  end
  if string.format('%.0f', sum) ~= digest then different[#different + 1] = room end
  if tonumber(redis.call('HGET', PREFIX .. 'on:' .. room, node) or 0) ~= members
    or tonumber(redis.call('HGET', PREFIX .. 'rooms', room) or 0) ~= #stored / 2
    or redis.call('SISMEMBER', PREFIX .. 'seats:' .. node, room) == 0 then
    damaged[#damaged + 1] = room
  end
end
return { different, damaged }
