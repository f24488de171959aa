#!lua flags=no-writes
-- Reads many tasks in one call.
-- ARGV: ids, as one MessagePack array
-- Returns for each the fields that codec.decode_task takes, in that order.
local rows = {}
for i, id in ipairs(cmsgpack.unpack(ARGV[1])) do
  rows[i] = redis.call('HMGET', task(id), 's', 'spec', 'ex', 'err', 'res', 'ref')
end
return rows
