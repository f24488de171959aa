-- Shared by every script; P is the key prefix of one deployment: is:{model:version}:
--
-- key                type    holds
-- t:<id>             hash    one task; its fields are listed in codec.py
-- w:high|normal|low  zset    waiting tasks, score = fair-queueing tag
-- delay              zset    tasks waiting for a retry, score = when it is due
-- lease              zset    running tasks, score = when the lease runs out
-- deadline           zset    unfinished tasks that can expire, score = when
-- live               zset    replicas, score = last heartbeat
-- status             hash    replica -> ReplicaStatus as JSON
-- run:<replica>      string  "<id>/<attempt> ..." of the batch it began last
-- tenants            hash    tenant -> its unfinished tasks
-- tags               hash    <lane>:<tenant> -> tag of the tenant's newest task
-- meta               hash    virtual time of each lane, counters
-- out                stream  outbox: "<id> <version> ..." of changed tasks
-- archived           list    "<when> <id> ..." of finished tasks that PostgreSQL holds, oldest first
-- bell               list    one item wakes one waiting replica
-- idem:<n>:<tenant>:<k> string  "<id> <fingerprint>" of an idempotency key
--
-- Times are milliseconds since the epoch by the clock of Redis, the only clock used.
-- Tasks come as one argument, a MessagePack array with an array of strings for each: redis-py
-- spends about a microsecond on every argument.
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

local function finishing()
  return setmetatable({ids = {}, changed = {}, tenants = {}, news = {}, done = 0}, Finish)
end

-- fields: the hash fields to set; row: {version, tenant, apis} as read from the hash
function Finish:add(id, state, version, tenant, apis, fields, message)
  fields[#fields + 1] = 'st'
  fields[#fields + 1] = state
  fields[#fields + 1] = 'v'
  fields[#fields + 1] = version
  redis.call('HSET', task(id), unpack(fields))
  self.ids[#self.ids + 1] = id
  self.changed[#self.changed + 1] = id
  self.changed[#self.changed + 1] = version
  self.tenants[tenant] = (self.tenants[tenant] or 0) + 1
  if apis and apis ~= '' then
    for api in string.gmatch(apis, '%S+') do
      local list = self.news[api]
      if not list then
        list = {}
        self.news[api] = list
      end
      list[#list + 1] = message
    end
  end
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

-- Takes tasks that have not run yet out of the places where they wait.
local function unqueue(id, lane)
  if redis.call('ZREM', P .. 'w:' .. lane, id) == 0 then
    redis.call('ZREM', P .. 'delay', id)
  end
end
