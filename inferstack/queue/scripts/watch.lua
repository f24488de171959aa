#!lua flags=allow-oom
-- Asks that an API process is told when a task finishes.
-- ARGV: api, id
-- Returns the state that the task is in now, or nil if there is no such task.
local row = redis.call('HMGET', task(ARGV[2]), 'st', 'api')
if row[1] == 'queued' or row[1] == 'running' then
  local apis = row[2] or ''
  if not string.find(' ' .. apis .. ' ', ' ' .. ARGV[1] .. ' ', 1, true) then
    redis.call('HSET', task(ARGV[2]), 'api', apis == '' and ARGV[1] or apis .. ' ' .. ARGV[1])
  end
end
return row[1]
