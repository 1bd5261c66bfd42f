-- All members of a room had left that this Redis never knew, and every node has had the time to state its own: the room is
-- closed, unless another node has stated a member there. ARGV: room. Returns the webhook records.
begin_essential()
close_if_empty(ARGV[1])
return encode_webhook_records()
