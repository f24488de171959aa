#!lua flags=allow-oom
-- Cancels an unfinished task. A replica that computes it finds its completion refused.
-- ARGV: id
-- Returns the state that the task is in now, or nil if there is no such task.
local id = ARGV[1]
local row = redis.call('HMGET', task(id), 'st', 'a', 'v', 'tn', 'api', 'sa', 'rl', 'cr', 'ln')
local state = row[1]
if state ~= 'queued' and state ~= 'running' then return state end
local now, finish = clock(), finishing()
unqueue(id, row[9])
finish:add(id, 'cancelled', row[3] + 1, row[4], row[5], {'ca', now},
  {id, 'cancelled', (row[2] or 0) - (row[7] or 0), row[8] or 0, row[6] or '', now, '', '', '', ''})
finish:flush()
return 'cancelled'
