#!lua
-- Remembers which deployment an idempotency key went to: a repeat goes there too, whatever
-- version is the newest by then.
-- ARGV: keep_ms, keys; each: tenant, key, deployment ('' only asks), 1 to move the key there
--       whatever was known
-- Returns the deployment of each key: the one given, if the key is new or moves.
local found = {}
for i, asked in ipairs(cmsgpack.unpack(ARGV[2])) do
  local tenant, key, deployment, moves = unpack(asked)
  local name = route_of(tenant, key)
  found[i] = redis.call('GET', name)
  if not found[i] or (moves == 1 and found[i] ~= deployment) then
    if deployment ~= '' then redis.call('SET', name, deployment, 'PX', ARGV[1]) end
    found[i] = deployment
  elseif deployment ~= '' then
    -- Who uses it now may be as long on its way as who came first; never shorter than it was.
    redis.call('PEXPIRE', name, ARGV[1], 'GT')
  end
end
return found
