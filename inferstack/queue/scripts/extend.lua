#!lua flags=allow-oom
-- Prolongs leases of tasks that a replica still works on.
-- ARGV: worker, lease_ms, tasks; each: id, attempt
-- Returns the ids to abandon: the replica no longer holds them.
local until_ms = digits(clock() + ARGV[2])
local leases, lost = {}, {}
local held = cmsgpack.unpack(ARGV[3])
for first = 1, #held, 2 do
  local id, attempt = held[first], held[first + 1]
  if runs(read(id), ARGV[1], attempt) then
    leases[#leases + 1] = until_ms
    leases[#leases + 1] = id
  else
    lost[#lost + 1] = id
  end
end
if #leases > 0 then redis.call('ZADD', P .. 'lease', 'XX', unpack(leases)) end
return lost
