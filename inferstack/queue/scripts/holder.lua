#!lua flags=no-writes
-- Which task holds an idempotency key here.
-- ARGV: tenant, key
-- Returns its id, or nil if there is none.
local held = redis.call('GET', holder_of(ARGV[1], ARGV[2]))
return held and string.match(held, '^(%S+) ') or false
