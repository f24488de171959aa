#!lua flags=allow-oom
-- Gives up an idempotency key here, so that another deployment may take it; not if a task has it.
-- ARGV: tenant, key
-- Returns the id of the task that has it, or nil if the key is given up.
local name = holder_of(ARGV[1], ARGV[2])
local held = redis.call('GET', name)
if held and held ~= MOVED then return string.match(held, '^(%S+) ') end
redis.call('SET', name, MOVED, 'PX', MOVED_MS)
return false
