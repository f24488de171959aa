#!lua flags=allow-oom
-- Ends attempts that failed: a retry later while the budget lasts, or the failed state.
-- ARGV: max_attempts, tasks; each: id, attempt, how (final: no retry; retry: while the budget
--       lasts; free: a retry that charges nothing, since not the task failed), delay_ms,
--       error as JSON, execution as JSON
-- Returns a status for each: retry, failed or stale.
local now, budget = clock(), tonumber(ARGV[1])
local finish, delays, released, changed, reply = finishing(), {}, {}, {}, {}
for _, failed in ipairs(cmsgpack.unpack(ARGV[2])) do
  local id, attempt, how, delay, failure, execution = unpack(failed)
  local row = redis.call('HMGET', task(id), 'st', 'a', 'v', 'tn', 'api', 'sa', 'rl', 'cr', 'fl')
  if row[1] ~= 'running' or row[2] ~= attempt then
    reply[#reply + 1] = 'stale'
  else
    local free = how == 'free'
    local failures, version = (row[9] or 0) + (free and 0 or 1), row[3] + 1
    if how == 'final' or failures >= budget then
      finish:add(id, 'failed', version, row[4], row[5],
        {'ca', now, 'ex', execution, 'err', failure, 'fl', failures},
        {id, 'failed', attempt - (row[7] or 0), row[8] or 0, row[6], now, execution, failure, '', ''})
      reply[#reply + 1] = 'failed'
    else
      redis.call('HSET', task(id), 'st', 'queued', 'fl', failures, 'err', failure, 'v', version)
      if free then redis.call('HINCRBY', task(id), 'rl', 1) end
      released[#released + 1] = id
      delays[#delays + 1] = now + delay
      delays[#delays + 1] = id
      reply[#reply + 1] = 'retry'
    end
  end
end
if #released > 0 then
  redis.call('ZREM', P .. 'lease', unpack(released))
  redis.call('ZADD', P .. 'delay', unpack(delays))
end
if #finish.ids > 0 then redis.call('HINCRBY', P .. 'meta', 'failed', #finish.ids) end
finish:flush()
return reply
