#!lua flags=allow-oom
-- Marks a replica as live. Returns its note of the batch that it began last, nil if it left.
-- ARGV: worker, status as JSON ('' to leave)
if ARGV[2] == '' then
  redis.call('ZREM', P .. 'live', ARGV[1])
  redis.call('HDEL', P .. 'status', ARGV[1])
  redis.call('HDEL', P .. 'idle', ARGV[1])
  redis.call('DEL', P .. 'run:' .. ARGV[1])
else
  redis.call('ZADD', P .. 'live', clock(), ARGV[1])
  redis.call('HSET', P .. 'status', ARGV[1], ARGV[2])
  return redis.call('GET', P .. 'run:' .. ARGV[1])
end
