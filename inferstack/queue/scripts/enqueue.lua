#!lua
-- Accepts tasks. Replay-safe: a task id that exists is answered as a duplicate. A first call can
-- meet one too: its sender gave it up, and the repeat overtook it on the way.
-- Refused by Redis itself when it is out of memory.
-- ARGV: last moment at which it counts, api, max_queue, max_tenant_queue, max_outbox,
--       idempotency_ms, first version, tasks; each:
--       id, lane, tenant, cost / weight in thousandths, timeout_ms ('' never expires),
--       idempotency key ('' for none), fingerprint, spec as `text`, and how: 1 to tell api when it
--       is done, plus 2 if another deployment takes it when this one's circuit is open, plus 4 to
--       take it as a repeat only
-- Returns {now, {status, id, ahead}, ...}; status is ok, dup, mismatch, full, tenant-full,
-- outbox-full or open; ahead: how many tasks are served before it, or for how many ms the breaker
-- stays open; id: the task that holds the key. After the last moment {now, 'late'}.
local now = clock()
-- A repeat of it may be done and forgotten: it would run again.
if now > tonumber(ARGV[1]) then return {now, 'late'} end
local WIDTH = 9
local api, max_queue, max_tenant, max_outbox = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local idempotency_ms, version = ARGV[6], tonumber(ARGV[7])
-- Attempts at a task that Redis has lost may still be under way, and nobody knows their numbers any
-- more. The time is beyond them all; it counts as no attempt.
local fence = version > 1 and now or 0
local depth = {}
for _, lane in ipairs(LANES) do depth[lane] = redis.call('ZCARD', P .. 'w:' .. lane) end
local total = depth.high + depth.normal + depth.low
local clogged = tonumber(redis.call('HGET', P .. 'meta', 'outbox') or 0) >= max_outbox

-- The fuller the queue, the higher a priority it takes to get in.
local SHARES = {high = 1, normal = 0.95, low = 0.8}
local shut = opened(now)
local running = shut and redis.call('ZCARD', P .. 'lease')

local counts, added, tags, virtual = {}, {}, {}, {}
local queue, deadlines, changed, reply = {}, {}, {}, {now}

-- One look for all: hardly ever is there one.
local tasks, ids = cmsgpack.unpack(ARGV[8]), {}
for first = 1, #tasks, WIDTH do ids[#ids + 1] = task(tasks[first]) end
local met = #ids > 0 and redis.call('EXISTS', unpack(ids)) > 0

local function refuse(id, lane, tenant, key, fingerprint, how)
  if met and redis.call('EXISTS', task(id)) == 1 then return 'dup', id end
  if key ~= '' then
    local held = redis.call('GET', holder_of(tenant, key))
    if held == MOVED then return 'open', id end
    if held then
      local space = string.find(held, ' ', 1, true)
      local first = string.sub(held, 1, space - 1)
      return string.sub(held, space + 1) == fingerprint and 'dup' or 'mismatch', first
    end
  end
  if how >= 4 then return 'open', id end
  if clogged then return 'outbox-full', id end
  if shut and (shut > 0 or total + running >= PROBES) then return 'open', id end
  if total >= math.ceil(max_queue * SHARES[lane]) then return 'full', id end
  if not counts[tenant] then
    counts[tenant] = tonumber(redis.call('HGET', P .. 'tenants', tenant) or 0)
    added[tenant] = 0
  end
  if counts[tenant] + added[tenant] >= max_tenant then return 'tenant-full', id end
end

-- Self-clocked fair queueing: tag = max(virtual time of the lane, tenant's last tag) + cost.
local function stamp(lane, tenant, cost)
  local slot = lane .. ':' .. tenant
  if not virtual[lane] then
    virtual[lane] = tonumber(redis.call('HGET', P .. 'meta', 'virtual:' .. lane) or 0)
  end
  local last = tags[slot] or tonumber(redis.call('HGET', P .. 'tags', slot) or 0)
  tags[slot] = math.max(virtual[lane], last) + cost
  return tags[slot]
end

-- Most tasks of a call have the same timeout.
local expiries = {}
local function expiry(timeout)
  expiries[timeout] = expiries[timeout] or digits(now + timeout)
  return expiries[timeout]
end

for first = 1, #tasks, WIDTH do
  local id, lane, tenant, cost, timeout, key, fingerprint, spec, how =
    unpack(tasks, first, first + WIDTH - 1)
  local status, holder = refuse(id, lane, tenant, key, fingerprint, how)
  local ahead = status == 'open' and shut or 0
  if status == 'open' and key ~= '' and (how == 2 or how == 3) then
    redis.call('SET', holder_of(tenant, key), MOVED, 'PX', MOVED_MS)
  end
  if not status then
    status, holder = 'ok', id
    if key ~= '' then
      redis.call('SET', holder_of(tenant, key), id .. ' ' .. fingerprint, 'PX', idempotency_ms)
      -- Until then it is kept for a moment only, which may be over.
      redis.call('SET', route_of(tenant, key), string.match(P, '{(.*)}'), 'PX', idempotency_ms)
    end
    local tag = stamp(lane, tenant, cost)
    local watch = how % 2 == 1 and api or ''
    local row = {version, fence, fence, 0, 0, tag, now, 0, 0, 'queued', lane, tenant, '', watch}
    redis.call('HSET', task(id), 's', packed(row), 'spec', text(spec))
    if timeout ~= '' then
      deadlines[#deadlines + 1] = expiry(timeout)
      deadlines[#deadlines + 1] = id
    end
    local list = queue[lane]
    if not list then
      list = {}
      queue[lane] = list
    end
    list[#list + 1] = digits(tag)
    list[#list + 1] = id
    changed[#changed + 1] = id
    changed[#changed + 1] = ARGV[7]
    added[tenant] = added[tenant] + 1
    ahead = depth.high
    if lane ~= 'high' then ahead = ahead + depth.normal end
    if lane == 'low' then ahead = ahead + depth.low end
    depth[lane] = depth[lane] + 1
    total = total + 1
  end
  reply[#reply + 1] = {status, holder, ahead}
end

if #changed > 0 then
  for lane, list in pairs(queue) do redis.call('ZADD', P .. 'w:' .. lane, unpack(list)) end
  if #deadlines > 0 then redis.call('ZADD', P .. 'deadline', unpack(deadlines)) end
  for tenant, count in pairs(added) do
    if count > 0 then redis.call('HINCRBY', P .. 'tenants', tenant, count) end
  end
  local flat = {}
  for slot, tag in pairs(tags) do
    flat[#flat + 1] = slot
    flat[#flat + 1] = digits(tag)
  end
  redis.call('HSET', P .. 'tags', unpack(flat))
  record(changed)
  ring(#changed / 2)
end
return reply
