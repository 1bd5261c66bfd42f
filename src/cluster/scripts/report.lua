-- An event that only webhooks get, and that is no change of membership. ARGV: room. Returns: its number, or 0 where the room
-- is closed.
local room = ARGV[1]
if not is_open(room) then return 0 end
return number_event(room, 'report')
