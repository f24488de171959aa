#!lua flags=allow-oom
-- Asks that an API process is told when a task finishes.
-- ARGV: api, id
-- Returns the state that the task is in now, or nil if there is no such task.
local row = read(ARGV[2])
if not row then return false end
if pending(row) and not string.find(' ' .. row[APIS] .. ' ', ' ' .. ARGV[1] .. ' ', 1, true) then
  row[APIS] = row[APIS] == '' and ARGV[1] or row[APIS] .. ' ' .. ARGV[1]
  write(ARGV[2], row)
end
return row[STATE]
