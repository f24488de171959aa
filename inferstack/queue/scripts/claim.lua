#!lua flags=allow-oom
-- Leases waiting tasks to a replica, in the order of lanes and tags.
-- A claim whose reply is lost is made good by the lease: it runs out and charges no attempt.
-- ARGV: worker, limit, lease_ms, tasks of a full batch
-- Returns {{id, attempt, crashes, failures, spec}, ...}, empty if nothing waits.
local count = waiting()
if count == 0 then
  -- Only who lives: `tick` takes nobody else out again.
  if redis.call('ZSCORE', P .. 'live', ARGV[1]) then
    redis.call('HSET', P .. 'idle', ARGV[1], 1)
  end
  return {}
end
local now = clock()
local shut = opened(now)
if shut and shut > 0 then return {} end
local until_ms = digits(now + ARGV[3])
-- One replica takes its share and no more, or the others would idle; while none of them does, it
-- takes a full batch, since small batches waste the device.
local share = math.ceil(count / math.max(1, redis.call('ZCARD', P .. 'live')))
redis.call('HDEL', P .. 'idle', ARGV[1])
if redis.call('HLEN', P .. 'idle') == 0 then share = math.max(share, ARGV[4]) end
local limit = math.min(tonumber(ARGV[2]), share, MOST)
if shut then limit = math.min(limit, PROBES - redis.call('ZCARD', P .. 'lease')) end
-- Of eight claims one starts at the low lane and one at the normal one, so that both always move.
local turn = redis.call('HINCRBY', P .. 'meta', 'claims', 1) % 8
local order = turn == 0 and {'low', 'normal', 'high'} or turn == 4 and {'normal', 'high', 'low'} or LANES
local leases, claimed, meta = {}, {}, {}

for _, lane in ipairs(order) do
  while #claimed < limit do
    local popped = redis.call('ZPOPMIN', P .. 'w:' .. lane, limit - #claimed)
    if #popped == 0 then break end
    -- Tasks that come back have old tags. Whoever came next would be served before all who wait.
    local reached = tonumber(redis.call('HGET', P .. 'meta', 'virtual:' .. lane) or 0)
    if tonumber(popped[#popped]) > reached then
      meta[#meta + 1] = 'virtual:' .. lane
      meta[#meta + 1] = popped[#popped]
    end
    for j = 1, #popped, 2 do
      local id = popped[j]
      local found = redis.call('HMGET', task(id), 's', 'spec')
      local row = unpacked(found[1])
      if row and row[STATE] == 'queued' then
        row[STATE], row[VERSION], row[ATTEMPT] = 'running', row[VERSION] + 1, row[ATTEMPT] + 1
        row[WORKER], row[STARTED] = ARGV[1], now
        write(id, row)
        leases[#leases + 1] = until_ms
        leases[#leases + 1] = id
        claimed[#claimed + 1] = {id, row[ATTEMPT], row[CRASHES], row[FAILURES], found[2]}
      end
    end
  end
end
if #leases > 0 then redis.call('ZADD', P .. 'lease', unpack(leases)) end
if #meta > 0 then redis.call('HSET', P .. 'meta', unpack(meta)) end
return claimed
