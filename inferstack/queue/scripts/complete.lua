#!lua flags=allow-oom
-- Gives tasks their results, if the replica still holds them.
-- ARGV: tasks; each: id, attempt, result ('' if it lies in the object store), its key there
--       ('' if inline), execution as JSON
-- Returns a status for each: ok, again (this very completion happened before) or stale.
local now = clock()
local finish, reply = finishing(), {}
for _, done in ipairs(cmsgpack.unpack(ARGV[1])) do
  local id, attempt, result, ref, execution = unpack(done)
  local row = redis.call('HMGET', task(id), 'st', 'a', 'v', 'tn', 'api', 'sa', 'rl', 'cr')
  if row[2] == attempt and row[1] == 'running' then
    local fields = {'ca', now, 'ex', execution}
    fields[5] = ref == '' and 'res' or 'ref'
    fields[6] = ref == '' and result or ref
    finish:add(id, 'completed', row[3] + 1, row[4], row[5], fields,
      {id, 'completed', attempt - (row[7] or 0), row[8] or 0, row[6], now, execution, '', result, ref})
    reply[#reply + 1] = 'ok'
  elseif row[2] == attempt and row[1] == 'completed' then
    reply[#reply + 1] = 'again'
  else
    reply[#reply + 1] = 'stale'
  end
end
if #finish.ids > 0 then redis.call('HINCRBY', P .. 'meta', 'done', #finish.ids) end
finish:flush()
return reply
