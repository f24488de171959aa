#!lua flags=allow-oom
-- Forgets what PostgreSQL holds now: outbox entries at once, finished tasks after a while.
-- ARGV: keep_ms, number of entries, for each entry its id and how many changes it tells of,
--       then the ids of finished tasks
-- Returns how many changes were forgotten; an entry that is gone already counts none.
local last = 2 + 2 * tonumber(ARGV[2])
local forgotten = 0
for i = 3, last, 2 do
  if redis.call('XDEL', P .. 'out', ARGV[i]) == 1 then forgotten = forgotten + ARGV[i + 1] end
end
if forgotten > 0 then redis.call('HINCRBY', P .. 'meta', 'outbox', -forgotten) end
for i = last + 1, #ARGV do redis.call('PEXPIRE', task(ARGV[i]), ARGV[1]) end
return forgotten
