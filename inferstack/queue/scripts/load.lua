#!lua flags=no-writes
-- Reads many tasks in one call.
-- ARGV: ids
-- Returns for each the fields that codec.decode_task takes, in that order.
local rows = {}
for i = 1, #ARGV do
  rows[i] = redis.call('HMGET', task(ARGV[i]), 'st', 'v', 'spec', 'a', 'rl', 'cr', 'at', 'sa', 'ca', 'ex', 'err', 'res', 'ref')
end
return rows
