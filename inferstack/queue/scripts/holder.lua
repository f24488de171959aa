#!lua flags=allow-oom
-- Which task has an idempotency key here; if there is none, gives the key up if that is wanted, so
-- that another deployment may take it.
-- ARGV: tenant, key, 1 to give it up
-- Returns the id of the task, or nil if there is none.
local name = holder_of(ARGV[1], ARGV[2])
local held = redis.call('GET', name)
if held and held ~= MOVED then return string.match(held, '^(%S+) ') end
if ARGV[3] == '1' then redis.call('SET', name, MOVED, 'PX', MOVED_MS) end
return false
