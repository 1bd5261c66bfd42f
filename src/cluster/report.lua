-- Something has happened in a room that only those hear of who are told outside. ARGV: room. Returns: its number, or 0
-- where the room is over.
local room = ARGV[1]
if redis.call('HEXISTS', P .. 'rooms', room) == 0 then return 0 end
return redis.call('HINCRBY', P .. 'told', room, 1)
