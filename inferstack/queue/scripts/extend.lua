#!lua flags=allow-oom
-- Prolongs leases of tasks that a replica still works on.
-- ARGV: lease_ms, then for each task: id, attempt
-- Returns the ids to abandon: the replica no longer holds them.
local until_ms = clock() + ARGV[1]
local leases, lost = {}, {}
for i = 2, #ARGV, 2 do
  local row = redis.call('HMGET', task(ARGV[i]), 'st', 'a')
  if row[1] == 'running' and row[2] == ARGV[i + 1] then
    leases[#leases + 1] = until_ms
    leases[#leases + 1] = ARGV[i]
  else
    lost[#lost + 1] = ARGV[i]
  end
end
if #leases > 0 then redis.call('ZADD', P .. 'lease', 'XX', unpack(leases)) end
return lost
