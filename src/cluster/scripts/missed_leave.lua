-- Somebody has left whom this engine never knew, for it has lost its memory meanwhile. ARGV: room, client, username, why,
-- number of what was told outside that its node knows. Or of all of a room, and long after: ARGV: room; then it is over, unless
-- some other node has stated that it has somebody there. Returns what is told outside.
local room, client = ARGV[1], ARGV[2]
if not client then
  closes(room)
  return told
end
-- It is in again already.
if redis.call('HEXISTS', P .. 'room:' .. room, client) == 1 then return told end
at_least(room, ARGV[5])
note(room, 'left', client, '. 0 ' .. ARGV[3], ARGV[4])
return told
