#!lua flags=allow-oom
-- Ends attempts that failed: a retry later while the budget lasts, or the failed state.
-- ARGV: max_attempts, then for each task: id, attempt, final ('1': no retry), delay_ms,
--       error as JSON, execution as JSON
-- Returns a status for each: retry, failed or stale.
local now, budget = clock(), tonumber(ARGV[1])
local finish, delays, released, changed, reply = finishing(), {}, {}, {}, {}
for i = 2, #ARGV, 6 do
  local id, attempt, failure, execution = ARGV[i], ARGV[i + 1], ARGV[i + 4], ARGV[i + 5]
  local row = redis.call('HMGET', task(id), 'st', 'a', 'v', 'tn', 'api', 'sa', 'rl', 'cr', 'fl')
  if row[1] ~= 'running' or row[2] ~= attempt then
    reply[#reply + 1] = 'stale'
  else
    local failures, version = (row[9] or 0) + 1, row[3] + 1
    if ARGV[i + 2] == '1' or failures >= budget then
      finish:add(id, 'failed', version, row[4], row[5],
        {'ca', now, 'ex', execution, 'err', failure, 'fl', failures},
        {id, 'failed', attempt - (row[7] or 0), row[8] or 0, row[6], now, execution, failure, '', ''})
      reply[#reply + 1] = 'failed'
    else
      redis.call('HSET', task(id), 'st', 'queued', 'fl', failures, 'err', failure, 'v', version)
      released[#released + 1] = id
      delays[#delays + 1] = now + ARGV[i + 3]
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
