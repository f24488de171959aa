-- The circuit breaker of a deployment, part of every script. Key: `breaker`, a hash:
--   good, bad  attempts that ended well or in an error of the engine, fading with the window;
--              counted from the first failure on, so that success alone costs nothing
--   at         when they faded last
--   crashes    replicas lost in a row without a result in between
--   until      while it is open: when probes may pass; missing while it is closed
--   for        how long it was opened for: bounds `until` after the clock of Redis stepped back
--   opens      how often it opened in a row
-- Closed: everything passes. Open: new work is refused and nothing is claimed, so what waits
-- keeps its attempts. From `until` on a few probes pass: the first outcome closes it, or opens it
-- for twice as long.
local PROBES = 4
local LONGEST = 32 -- times as long as the first time

-- Milliseconds until probes may pass, 0 if they may now; nil while it is closed.
local function opened(now)
  local until_ms, longest = unpack(redis.call('HMGET', P .. 'breaker', 'until', 'for'))
  if not until_ms then return nil end
  local left = until_ms - now
  if longest and left > tonumber(longest) then
    left = tonumber(longest)
    redis.call('HSET', P .. 'breaker', 'until', digits(now + left))
  end
  return math.max(0, left)
end

local function open(now, opens, pause)
  local longest = pause * math.min(2 ^ opens, LONGEST)
  redis.call('DEL', P .. 'breaker')
  redis.call('HSET', P .. 'breaker', 'until', digits(now + longest), 'for', digits(longest),
    'opens', opens + 1)
  redis.call('HINCRBY', P .. 'meta', 'opened', 1)
end

-- Takes in what became of some attempts. rules: '<window_ms> <volume> <ratio> <crashes>
-- <pause_ms>', '' for no breaker.
local function judge(rules, now, good, bad, crashes)
  if rules == '' then return end
  local key = P .. 'breaker'
  local known = redis.call('HMGET', key, 'good', 'bad', 'at', 'crashes', 'until', 'opens')
  local until_ms, failed = known[5], bad + crashes > 0
  if not (failed or known[3] or until_ms) then return end
  local window, volume, ratio, most, pause = string.match(rules, '(%S+) (%S+) (%S+) (%S+) (%S+)')
  if until_ms then
    if now < tonumber(until_ms) then return end
    if failed then
      open(now, tonumber(known[6]), pause)
    elseif good > 0 then
      redis.call('DEL', key)
    end
    return
  end
  local kept = known[3] and math.min(1, math.exp((known[3] - now) / window)) or 0
  crashes = good > 0 and 0 or (known[4] or 0) + crashes
  good, bad = (known[1] or 0) * kept + good, (known[2] or 0) * kept + bad
  local total = good + bad
  if crashes >= tonumber(most) or (total >= tonumber(volume) and bad >= ratio * total) then
    open(now, 0, pause)
  elseif bad < 0.5 and crashes == 0 then
    redis.call('DEL', key)
  else
    redis.call('HSET', key, 'good', good, 'bad', bad, 'at', digits(now), 'crashes', crashes)
  end
end
