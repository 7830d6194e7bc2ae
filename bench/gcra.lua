-- Decides one check by several token buckets at once, each kept as the time at which it is full again (GCRA).
-- KEYS: a bucket each. ARGV: the cost, then for each bucket the microseconds that a token takes to flow back and the
-- burst in tokens. Takes the cost of all buckets or of none. Returns {0, 0}, or the number of the first bucket that
-- has too little and the milliseconds until it has enough.
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local kept = redis.call('MGET', unpack(KEYS))
local full = {}
for i = 1, #KEYS do
  local token = tonumber(ARGV[2 * i])
  full[i] = math.max(tonumber(kept[i] or now), now) + ARGV[1] * token
  local excess = full[i] - now - ARGV[2 * i + 1] * token
  if excess > 0 then
    return {i, math.ceil(excess / 1000)}
  end
end
for i, key in ipairs(KEYS) do
  -- Whole seconds: were keys to expire when their buckets are full, most would be deleted, on replicas too, after each check.
  redis.call('SET', key, string.format('%.0f', full[i]), 'EX', math.ceil((full[i] - now) / 1000000))
end
return {0, 0}
