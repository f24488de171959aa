#!lua flags=allow-oom
-- Frees an idempotency key whose task is gone, or that was given up here; whoever has taken it
-- meanwhile keeps it.
-- ARGV: tenant, key, id of the task that held it ('' if it was given up)
local name = holder_of(ARGV[1], ARGV[2])
local held = redis.call('GET', name)
local start = ARGV[3] == '' and MOVED or ARGV[3] .. ' '
if held and string.sub(held, 1, #start) == start then redis.call('UNLINK', name) end
return true
