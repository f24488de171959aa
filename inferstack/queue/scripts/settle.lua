#!lua flags=allow-oom
-- Forgets unfinished tasks that PostgreSQL knows as finished, after a backup was restored: it was
-- asked later than Redis was. Safe to repeat.
-- ARGV: ids
-- Returns how many were forgotten.
local finish, keys = finishing(clock()), {}
for _, id in ipairs(cmsgpack.unpack(ARGV[1])) do
  local row = read(id)
  if pending(row) then
    -- Out of every index and count. The state does not matter: the task is gone with its key, and
    -- the recorder passes over what it does not find.
    finish:abandon(id, row, 'cancelled')
    keys[#keys + 1] = task(id)
  end
end
finish:flush()
if #keys > 0 then redis.call('UNLINK', unpack(keys)) end
return #keys
