#!lua flags=allow-oom
-- Moves what time moves: expires, promotes due retries, takes back leases that ran out,
-- forgets replicas that fell silent and tasks that were archived long ago. Bounded work; run by
-- every replica and the recorder.
-- ARGV: limit, max_crashes, error as JSON for a task that took too many replicas down,
--       archived_ms, rules of the breaker, lease_ms
-- Returns {expired, promoted, reaped, crashed}.
local now, limit, max_crashes = clock(), ARGV[1], tonumber(ARGV[2])
local finish, woken = finishing(now), 0
local expired, promoted, reaped, crashed = 0, 0, 0, 0
local lost, losses = {}, 0
-- How often a replica prolongs a lease before it would run out: `Worker` in worker/loop.py.
local EXTENSIONS = 3

local function due(index)
  return redis.call('ZRANGEBYSCORE', P .. index, '-inf', now, 'LIMIT', 0, limit)
end

for _, id in ipairs(due('deadline')) do
  local row = read(id)
  if pending(row) then
    finish:abandon(id, row, 'expired')
    expired = expired + 1
  else
    redis.call('ZREM', P .. 'deadline', id)
  end
end
finish:flush()
finish = finishing(now)

for _, id in ipairs(due('delay')) do
  redis.call('ZREM', P .. 'delay', id)
  local row = read(id)
  if row and row[STATE] == 'queued' then
    wait(id, row)
    promoted = promoted + 1
  end
end

-- After a time without ticks nobody could prolong a lease either, or the clock jumped and no replica
-- knows of it: each gets as long as it takes until it prolongs its leases anyway, and a moment.
local last, spared = unpack(redis.call('HMGET', P .. 'meta', 'ticked', 'spared'))
local moment = math.max(LIVE_MS, ARGV[6] / EXTENSIONS + 2000)
if now - (last or now) > LIVE_MS then
  spared = now + moment
  redis.call('HSET', P .. 'meta', 'spared', digits(spared))
end
redis.call('HSET', P .. 'meta', 'ticked', now)
local left = (spared or now) - now
-- More than that is left only after the clock of Redis stepped back.
local sparing = left > 0 and left <= moment

for _, id in ipairs(sparing and {} or due('lease')) do
  redis.call('ZREM', P .. 'lease', id)
  local row = read(id)
  if row and row[STATE] == 'running' then
    local batch = redis.call('GET', P .. 'run:' .. row[WORKER]) or ''
    -- Only a task whose batch began can have taken the replica down.
    local note = ' ' .. id .. '/' .. digits(row[ATTEMPT]) .. ' '
    local began = string.find(' ' .. batch .. ' ', note, 1, true)
    local count = began and CRASHES or UNCHARGED
    row[count] = row[count] + 1
    reaped = reaped + 1
    if began and not lost[row[WORKER]] then
      lost[row[WORKER]] = true
      losses = losses + 1
    end
    if began and row[CRASHES] >= max_crashes then
      finish:add(id, row, 'failed', '', ARGV[3], '', '')
      crashed = crashed + 1
    else
      requeue(id, row)
      woken = woken + 1
    end
  end
end
if crashed > 0 then redis.call('HINCRBY', P .. 'meta', 'failed', crashed) end
if expired > 0 then redis.call('HINCRBY', P .. 'meta', 'expired', expired) end
finish:flush()
if ARGV[5] == '' then
  redis.call('DEL', P .. 'breaker') -- the breaker was turned off while it was open
else
  opened(now) -- also where nobody submits or claims, the clock may have stepped back
  if losses > 0 then judge(ARGV[5], now, 0, 0, losses) end
end

for _, worker in ipairs(redis.call('ZRANGEBYSCORE', P .. 'live', '-inf', now - LIVE_MS, 'LIMIT', 0, limit)) do
  redis.call('ZREM', P .. 'live', worker)
  redis.call('HDEL', P .. 'status', worker)
  redis.call('HDEL', P .. 'idle', worker)
end
forget(ARGV[4], 4)
if woken + promoted > 0 then ring(woken + promoted) end
return {expired, promoted, reaped, crashed}
