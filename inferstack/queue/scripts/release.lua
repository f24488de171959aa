#!lua flags=allow-oom
-- Gives tasks back unharmed: to the front of their lane, with no attempt charged.
-- ARGV: tasks; each: id, attempt
-- Returns how many went back.
local back = 0
for _, held in ipairs(cmsgpack.unpack(ARGV[1])) do
  local id, attempt = held[1], held[2]
  local row = redis.call('HMGET', task(id), 'st', 'a', 'ln', 'tag', 'v')
  if row[1] == 'running' and row[2] == attempt then
    redis.call('HSET', task(id), 'st', 'queued', 'v', row[5] + 1)
    redis.call('HINCRBY', task(id), 'rl', 1)
    redis.call('ZREM', P .. 'lease', id)
    redis.call('ZADD', P .. 'w:' .. row[3], row[4], id)
    back = back + 1
  end
end
if back > 0 then ring(back) end
return back
