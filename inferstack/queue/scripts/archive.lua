#!lua flags=allow-oom
-- Forgets what PostgreSQL holds now: outbox entries at once, finished tasks after a while.
-- ARGV: keep_ms, entries (each: id, how many changes it tells of), ids of finished tasks
-- Returns how many changes were forgotten; an entry that is gone already counts none.
local forgotten = 0
local entries = cmsgpack.unpack(ARGV[2])
for first = 1, #entries, 2 do
  if redis.call('XDEL', P .. 'out', entries[first]) == 1 then
    forgotten = forgotten + entries[first + 1]
  end
end
if forgotten > 0 then redis.call('HINCRBY', P .. 'meta', 'outbox', -forgotten) end
-- Where a failover lost the end of a task, it goes on here, and must not be forgotten before that.
local finished = {}
for _, id in ipairs(cmsgpack.unpack(ARGV[3])) do
  local row = read(id)
  if row and not pending(row) then finished[#finished + 1] = id end
end
if #finished > 0 then
  redis.call('RPUSH', P .. 'archived', clock() .. ' ' .. table.concat(finished, ' '))
end
-- Two for one: what has piled up goes away faster than it comes.
forget(ARGV[1], 2)
return forgotten
