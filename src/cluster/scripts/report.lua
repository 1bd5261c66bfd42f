-- Something has happened in a room that only those hear of who are told outside. ARGV: room. Returns: its number, or 0
-- where the room is over.
local room = ARGV[1]
if not is_open(room) then return 0 end
return note(room, 'report')
