#!lua flags=allow-oom
-- Gives tasks their results, if the replica still holds them.
-- ARGV: rules of the breaker, worker, tasks; each: id, attempt, result as `text` ('' if it lies in the
--       object store), its key there ('' if inline), execution as JSON
-- Returns a status for each: ok, again (this very completion happened before) or stale.
local WIDTH = 5
local now, worker = clock(), ARGV[2]
local finish, reply = finishing(now), {}
local tasks = cmsgpack.unpack(ARGV[3])
for first = 1, #tasks, WIDTH do
  local id, attempt, result, ref, execution = unpack(tasks, first, first + WIDTH - 1)
  local row = read(id)
  if runs(row, worker, attempt) then
    finish:add(id, row, 'completed', execution, '', text(result), ref)
    reply[#reply + 1] = 'ok'
  elseif holds(row, worker, attempt) and row[STATE] == 'completed' then
    reply[#reply + 1] = 'again'
  else
    reply[#reply + 1] = 'stale'
  end
end
if #finish.ids > 0 then
  redis.call('HINCRBY', P .. 'meta', 'done', #finish.ids)
  judge(ARGV[1], now, #finish.ids, 0, 0)
end
finish:flush()
return reply
