#!lua flags=allow-oom
-- Frees an idempotency key whose task is gone; whoever has taken it meanwhile keeps it.
-- ARGV: tenant, key, id of the task that held it
local name = holder_of(ARGV[1], ARGV[2])
local held = redis.call('GET', name)
if held and string.sub(held, 1, #ARGV[3] + 1) == ARGV[3] .. ' ' then redis.call('UNLINK', name) end
return true
