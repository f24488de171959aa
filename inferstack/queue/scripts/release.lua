#!lua flags=allow-oom
-- Gives tasks back unharmed: to the front of their lane, with no attempt charged.
-- ARGV: for each task: id, attempt
-- Returns how many went back.
local back = 0
for i = 1, #ARGV, 2 do
  local id = ARGV[i]
  local row = redis.call('HMGET', task(id), 'st', 'a', 'ln', 'tag', 'v')
  if row[1] == 'running' and row[2] == ARGV[i + 1] then
    redis.call('HSET', task(id), 'st', 'queued', 'v', row[5] + 1)
    redis.call('HINCRBY', task(id), 'rl', 1)
    redis.call('ZREM', P .. 'lease', id)
    redis.call('ZADD', P .. 'w:' .. row[3], row[4], id)
    back = back + 1
  end
end
if back > 0 then ring(back) end
return back
