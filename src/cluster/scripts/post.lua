-- An entry for the inbox of a node. ARGV: node, the names and values of the fields.
begin_essential()
post(unpack(ARGV))
return 1
