#!lua flags=allow-oom
-- Frees an idempotency key whose task is gone, or that was given up here.
-- ARGV: tenant, key, id of the task that held it ('' if it was given up)
free_key(ARGV[1], ARGV[2], ARGV[3] == '' and MOVED or ARGV[3] .. ' ')
return true
