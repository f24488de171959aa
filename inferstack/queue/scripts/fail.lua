#!lua flags=allow-oom
-- Ends attempts that failed: a retry later while the budget lasts, or the failed state.
-- ARGV: rules of the breaker, max_attempts, worker, tasks; each: id, attempt, how (final: no retry;
--       retry: while the budget lasts; free: a retry that charges nothing, since not the task
--       failed), delay_ms, error as JSON, execution as JSON, whether the engine failed (1 or 0)
-- Returns a status for each: retry, failed or stale.
local WIDTH = 7
local now, budget, worker, bad = clock(), tonumber(ARGV[2]), ARGV[3], 0
local finish, delays, delayed, reply = finishing(now), {}, {}, {}
local tasks = cmsgpack.unpack(ARGV[4])
for first = 1, #tasks, WIDTH do
  local id, attempt, how, delay, failure, execution, blamed =
    unpack(tasks, first, first + WIDTH - 1)
  local row = read(id)
  if not runs(row, worker, attempt) then
    reply[#reply + 1] = 'stale'
  else
    bad = bad + blamed
    local count = how == 'free' and UNCHARGED or FAILURES
    row[count] = row[count] + 1
    if how == 'final' or row[FAILURES] >= budget then
      finish:add(id, row, 'failed', execution, failure, '', '')
      reply[#reply + 1] = 'failed'
    else
      row[STATE], row[VERSION] = 'queued', row[VERSION] + 1
      redis.call('HSET', task(id), 's', packed(row), 'err', failure)
      delayed[#delayed + 1] = id
      delays[#delays + 1] = digits(now + delay)
      delays[#delays + 1] = id
      reply[#reply + 1] = 'retry'
    end
  end
end
if #delayed > 0 then
  redis.call('ZREM', P .. 'lease', unpack(delayed))
  redis.call('ZADD', P .. 'delay', unpack(delays))
end
if #finish.ids > 0 then redis.call('HINCRBY', P .. 'meta', 'failed', #finish.ids) end
finish:flush()
judge(ARGV[1], now, 0, bad, 0)
return reply
