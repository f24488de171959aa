-- Shared by every script; P is the key prefix of one deployment: is:{model:version}:
--
-- key                type    holds
-- t:<id>             hash    one task: s its record (below), spec what was asked for, and once they
--                            are known ex how it ran, err, res or ref its result; all but s JSON
-- w:high|normal|low  zset    waiting tasks, score = fair-queueing tag
-- delay              zset    tasks waiting for a retry, score = when it is due
-- lease              zset    running tasks, score = when the lease runs out
-- deadline           zset    unfinished tasks that can expire, score = when
-- live               zset    replicas, score = last heartbeat
-- status             hash    replica -> ReplicaStatus as JSON
-- idle               hash    replicas whose latest claim found nothing
-- run:<replica>      string  "<id>/<attempt> ..." of the batch it began last
-- tenants            hash    tenant -> its unfinished tasks
-- tags               hash    <lane>:<tenant> -> tag of the tenant's newest task
-- meta               hash    virtual time of each lane, counters
-- out                stream  outbox: "<id> <version> ..." of changed tasks
-- archived           list    "<when> <id> ..." of finished tasks that PostgreSQL holds, oldest first
-- drop               channel ids of running tasks that were cancelled or expired
-- bell               list    one item wakes one waiting replica
-- idem:<n>:<tenant>:<k> string  "<id> <fingerprint>" of an idempotency key, or "moved": another
--                           deployment takes its tasks from now on
--
-- Times are milliseconds since the epoch by the clock of Redis, the only clock used.
-- Tasks come as one argument, a flat MessagePack array with a few values for each: redis-py spends
-- about a microsecond on every argument. Long texts come as arguments of their own, see `text`.
-- Numbers that go to redis.call often are turned into strings once: it prints them with %.17g.
local P = KEYS[1]
local LANES = {'high', 'normal', 'low'}
local LIVE_MS = 5000
-- Lua takes about 8000 values in one call, a pair for each task among them.
local MOST = 1000

local function clock()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

local function task(id)
  return P .. 't:' .. id
end

-- The length keeps tenant 'a' with key 'b:c' apart from tenant 'a:b' with key 'c'.
local function holder_of(tenant, key)
  return P .. 'idem:' .. #tenant .. ':' .. tenant .. ':' .. key
end

-- Frees a key if what it holds begins so; whoever has taken it meanwhile keeps it.
local function free_key(tenant, key, start)
  local name = holder_of(tenant, key)
  local held = redis.call('GET', name)
  if held and string.sub(held, 1, #start) == start then redis.call('UNLINK', name) end
end

-- In place of the holder of a key that was given up here: another deployment takes its tasks from
-- now on, and a repeat that is still on its way here must not be taken as well. Nobody is on the
-- way for longer than that.
local MOVED, MOVED_MS = 'moved', 120000

-- Which deployment a key went to; this one belongs to no deployment.
local function route_of(tenant, key)
  return 'is:{keys}:' .. #tenant .. ':' .. tenant .. ':' .. key
end

-- The record of a task: one packed text, so that a script reads and writes one field. Of the
-- libraries that Redis has for that, struct does it in a third of the time of cmsgpack.
local RECORD = '<dddddddddsssss'
local VERSION = 1 -- grows with each change of state
local ATTEMPT = 2 -- of the latest claim; with WORKER its fence
local UNCHARGED = 3 -- claims that count as no attempt
local FAILURES = 4
local CRASHES = 5
local TAG = 6 -- for fair queueing
local CREATED = 7
local STARTED = 8 -- 0 before it happened; so is COMPLETED
local COMPLETED = 9
local STATE = 10 -- queued, running, completed, failed, cancelled or expired
local LANE = 11
local TENANT = 12
local WORKER = 13 -- replica of the latest claim; '' for none
local APIS = 14 -- API processes to tell when it is done, parted by spaces

local function packed(row)
  return struct.pack(RECORD, unpack(row, 1, APIS))
end

-- Returns nil if there is no such task.
local function unpacked(record)
  return record and {struct.unpack(RECORD, record)} or nil
end

local function read(id)
  return unpacked(redis.call('HGET', task(id), 's'))
end

local function write(id, row)
  redis.call('HSET', task(id), 's', packed(row))
end

local function pending(row)
  return row and (row[STATE] == 'queued' or row[STATE] == 'running')
end

-- Whether this replica holds this attempt. The number alone does not tell: where a failover lost a
-- claim, another replica was given the same one.
local function holds(row, worker, attempt)
  return row and row[WORKER] == worker and row[ATTEMPT] == attempt
end

local function runs(row, worker, attempt)
  return holds(row, worker, attempt) and row[STATE] == 'running'
end

-- A long text is not among the packed tasks but an argument, whose number stands in its place:
-- Lua hashes every string that it makes, byte by byte.
local function text(value)
  return type(value) == 'number' and ARGV[value] or value
end

local function digits(number)
  return string.format('%d', number)
end

-- Puts a task into its lane, at its old place if it has been there.
local function wait(id, row)
  redis.call('ZADD', P .. 'w:' .. row[LANE], digits(row[TAG]), id)
end

-- Takes a task back that ran.
local function requeue(id, row)
  row[STATE], row[VERSION] = 'queued', row[VERSION] + 1
  write(id, row)
  wait(id, row)
end

local function waiting()
  return redis.call('ZCARD', P .. 'w:high') + redis.call('ZCARD', P .. 'w:normal')
    + redis.call('ZCARD', P .. 'w:low')
end

-- Wakes at most as many replicas as there are new tasks.
local function ring(count)
  local wanted = math.min(count, math.max(1, redis.call('ZCARD', P .. 'live')))
  for _ = redis.call('LLEN', P .. 'bell') + 1, wanted do
    redis.call('RPUSH', P .. 'bell', '1')
  end
end

-- Tells the recorder which tasks changed: one entry for all of a call.
local function record(changed)
  if #changed == 0 then return end
  redis.call('XADD', P .. 'out', '*', 'c', table.concat(changed, ' '))
  redis.call('HINCRBY', P .. 'meta', 'outbox', #changed / 2)
end

-- Books tasks as finished: out of every index, off the tenant's count, told to who waits.
local Finish = {}
Finish.__index = Finish

local function finishing(now)
  return setmetatable({now = now, ids = {}, changed = {}, tenants = {}, news = {}}, Finish)
end

-- row: the task's record; the rest: '' for what there is not
function Finish:add(id, row, state, execution, failure, result, ref)
  row[STATE], row[VERSION], row[COMPLETED] = state, row[VERSION] + 1, self.now
  local fields = {'s', packed(row)}
  local function set(name, value)
    if value ~= '' then
      fields[#fields + 1] = name
      fields[#fields + 1] = value
    end
  end
  set('ex', execution)
  set('err', failure)
  set('res', result)
  set('ref', ref)
  redis.call('HSET', task(id), unpack(fields))
  self.ids[#self.ids + 1] = id
  self.changed[#self.changed + 1] = id
  self.changed[#self.changed + 1] = digits(row[VERSION])
  local tenant = row[TENANT]
  self.tenants[tenant] = (self.tenants[tenant] or 0) + 1
  if row[APIS] == '' then return end
  local message = {id, state, row[ATTEMPT] - row[UNCHARGED], row[CRASHES], row[STARTED], self.now,
    execution, failure, result, ref}
  for api in string.gmatch(row[APIS], '%S+') do
    local list = self.news[api]
    if not list then
      list = {}
      self.news[api] = list
    end
    list[#list + 1] = message
  end
end

-- Ends a task that has not finished, wherever it is; it keeps the error of its last attempt.
function Finish:abandon(id, row, state)
  if row[STATE] == 'running' then redis.call('PUBLISH', P .. 'drop', id) end
  if redis.call('ZREM', P .. 'w:' .. row[LANE], id) == 0 then
    redis.call('ZREM', P .. 'delay', id)
  end
  local failure = row[FAILURES] > 0 and redis.call('HGET', task(id), 'err') or ''
  self:add(id, row, state, '', failure, '', '')
end

function Finish:flush()
  if #self.ids == 0 then return end
  redis.call('ZREM', P .. 'lease', unpack(self.ids))
  redis.call('ZREM', P .. 'deadline', unpack(self.ids))
  for tenant, count in pairs(self.tenants) do
    if redis.call('HINCRBY', P .. 'tenants', tenant, -count) <= 0 then
      redis.call('HDEL', P .. 'tenants', tenant)
      redis.call('HDEL', P .. 'tags', 'high:' .. tenant, 'normal:' .. tenant, 'low:' .. tenant)
    end
  end
  record(self.changed)
  for api, list in pairs(self.news) do
    redis.call('PUBLISH', 'is:done:' .. api, cmsgpack.pack(list))
  end
end

-- Deletes archived tasks after their time. With a TTL on each, Redis would expire them one by
-- one and write a deletion of each into the append-only file: docs/decisions/0017.
local function forget(keep_ms, batches)
  local oldest = clock() - keep_ms
  for _ = 1, batches do
    local batch = redis.call('LINDEX', P .. 'archived', 0)
    local when = batch and string.match(batch, '^%d+')
    if not when or tonumber(when) > oldest then return end
    redis.call('LPOP', P .. 'archived')
    local keys = {}
    for id in string.gmatch(batch, '%s(%S+)') do keys[#keys + 1] = task(id) end
    redis.call('UNLINK', unpack(keys))
  end
end
