-- A member has left that this Redis never knew, for it has lost its memory meanwhile. ARGV: room, client, username, reason,
-- number of the last webhook event that its node knows. Returns the webhook records.
begin_essential()
local room, client, username, reason, sequence = unpack(ARGV)
-- It has joined again already.
if redis.call('HEXISTS', PREFIX .. 'room:' .. room, client) == 1 then return encode_webhook_records() end
raise_sequence(room, sequence)
number_event(room, 'left', client, '. 0 ' .. username, reason)
return encode_webhook_records()
