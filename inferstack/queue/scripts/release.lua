#!lua flags=allow-oom
-- Gives tasks back unharmed: to the front of their lane, with no attempt charged.
-- ARGV: worker, tasks; each: id, attempt
-- Returns how many went back.
local back = 0
local held = cmsgpack.unpack(ARGV[2])
for first = 1, #held, 2 do
  local id, attempt = held[first], held[first + 1]
  local row = read(id)
  if runs(row, ARGV[1], attempt) then
    row[UNCHARGED] = row[UNCHARGED] + 1
    requeue(id, row)
    redis.call('ZREM', P .. 'lease', id)
    back = back + 1
  end
end
if back > 0 then ring(back) end
return back
