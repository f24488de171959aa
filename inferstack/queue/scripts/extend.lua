#!lua flags=allow-oom
-- Prolongs leases of tasks that a replica still works on.
-- ARGV: lease_ms, tasks; each: id, attempt
-- Returns the ids to abandon: the replica no longer holds them.
local until_ms = clock() + ARGV[1]
local leases, lost = {}, {}
for _, held in ipairs(cmsgpack.unpack(ARGV[2])) do
  local id, attempt = held[1], held[2]
  local row = redis.call('HMGET', task(id), 'st', 'a')
  if row[1] == 'running' and row[2] == attempt then
    leases[#leases + 1] = until_ms
    leases[#leases + 1] = id
  else
    lost[#lost + 1] = id
  end
end
if #leases > 0 then redis.call('ZADD', P .. 'lease', 'XX', unpack(leases)) end
return lost
