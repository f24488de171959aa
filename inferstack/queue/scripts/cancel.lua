#!lua flags=allow-oom
-- Cancels an unfinished task. A replica that computes it finds its completion refused.
-- ARGV: id
-- Returns the state that the task is in now, or nil if there is no such task.
local id = ARGV[1]
local row = read(id)
if not row then return false end
if pending(row) then
  local finish = finishing(clock())
  finish:abandon(id, row, 'cancelled')
  finish:flush()
end
return row[STATE]
