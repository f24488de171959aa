#!lua flags=allow-oom
-- Forgets finished tasks at once, whose rows their owner removes. Safe to repeat.
-- ARGV: ids
for _, id in ipairs(cmsgpack.unpack(ARGV[1])) do
  local row = read(id)
  if row and not pending(row) then redis.call('UNLINK', task(id)) end
end
return true
