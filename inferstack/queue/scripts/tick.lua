#!lua flags=allow-oom
-- Moves what time moves: expires, promotes due retries, takes back leases that ran out,
-- forgets replicas that fell silent and tasks that were archived long ago. Bounded work; run by
-- every replica and the recorder.
-- ARGV: limit, max_crashes, error as JSON for a task that took too many replicas down,
--       archived_ms
-- Returns {expired, promoted, reaped, crashed}.
local now, limit, max_crashes = clock(), ARGV[1], tonumber(ARGV[2])
local finish, woken = finishing(), 0
local expired, promoted, reaped, crashed = 0, 0, 0, 0

local function due(index)
  return redis.call('ZRANGEBYSCORE', P .. index, '-inf', now, 'LIMIT', 0, limit)
end

for _, id in ipairs(due('deadline')) do
  local row = redis.call('HMGET', task(id), 'st', 'a', 'v', 'tn', 'api', 'sa', 'rl', 'cr', 'ln')
  if row[1] == 'queued' or row[1] == 'running' then
    unqueue(id, row[9])
    finish:add(id, 'expired', row[3] + 1, row[4], row[5], {'ca', now},
      {id, 'expired', (row[2] or 0) - (row[7] or 0), row[8] or 0, row[6] or '', now, '', '', '', ''})
    expired = expired + 1
  else
    redis.call('ZREM', P .. 'deadline', id)
  end
end
finish:flush()
finish = finishing()

for _, id in ipairs(due('delay')) do
  redis.call('ZREM', P .. 'delay', id)
  local row = redis.call('HMGET', task(id), 'st', 'ln', 'tag')
  if row[1] == 'queued' then
    redis.call('ZADD', P .. 'w:' .. row[2], row[3], id)
    promoted = promoted + 1
  end
end

-- After a time without ticks nobody could prolong a lease either: replicas get a moment to.
local last = tonumber(redis.call('HGET', P .. 'meta', 'ticked') or now)
redis.call('HSET', P .. 'meta', 'ticked', now)
local late = now - last > LIVE_MS
if late then
  for _, id in ipairs(due('lease')) do redis.call('ZADD', P .. 'lease', now + LIVE_MS, id) end
end

for _, id in ipairs(late and {} or due('lease')) do
  redis.call('ZREM', P .. 'lease', id)
  local row = redis.call('HMGET', task(id), 'st', 'a', 'v', 'tn', 'api', 'sa', 'rl', 'cr', 'ln', 'tag', 'w')
  if row[1] == 'running' then
    local batch = redis.call('GET', P .. 'run:' .. row[11]) or ''
    -- Only a task whose batch began can have taken the replica down.
    local began = string.find(' ' .. batch .. ' ', ' ' .. id .. '/' .. row[2] .. ' ', 1, true)
    local crashes = tonumber(row[8] or 0) + (began and 1 or 0)
    reaped = reaped + 1
    if began and crashes >= max_crashes then
      finish:add(id, 'failed', row[3] + 1, row[4], row[5], {'ca', now, 'cr', crashes, 'err', ARGV[3]},
        {id, 'failed', row[2] - (row[7] or 0), crashes, row[6], now, '', ARGV[3], '', ''})
      crashed = crashed + 1
    else
      redis.call('HSET', task(id), 'st', 'queued', 'v', row[3] + 1, 'cr', crashes)
      if not began then redis.call('HINCRBY', task(id), 'rl', 1) end
      redis.call('ZADD', P .. 'w:' .. row[9], row[10], id)
      woken = woken + 1
    end
  end
end
if crashed > 0 then redis.call('HINCRBY', P .. 'meta', 'failed', crashed) end
if expired > 0 then redis.call('HINCRBY', P .. 'meta', 'expired', expired) end
finish:flush()

for _, worker in ipairs(redis.call('ZRANGEBYSCORE', P .. 'live', '-inf', now - LIVE_MS, 'LIMIT', 0, limit)) do
  redis.call('ZREM', P .. 'live', worker)
  redis.call('HDEL', P .. 'status', worker)
end
forget(ARGV[4], 4)
if woken + promoted > 0 then ring(woken + promoted) end
return {expired, promoted, reaped, crashed}
