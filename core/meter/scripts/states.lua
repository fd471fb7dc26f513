-- How rules stand, nothing changes. ARGV: now, rules (msgpack). Answers remaining, reset_ms, ...
local epoch = epoch_now()

local function state_of(rule)
  local kind, name, limit = rule[1], rule[2], rule[3]
  if WINDOW_MS[kind] then
    local log = read_log(name, WINDOW_MS[kind])
    return limit - log.used, log_reset_ms(log)
  elseif kind == 'tokens_per_minute' then
    local level = bucket_level(name, limit)
    return math.floor(level), bucket_reset_ms(limit, level)
  elseif kind == 'concurrency' then
    return limit - num(call('HGET', base .. 'conc', name)), 0
  end
  local window, ends = window_at(rule, now)
  if not window then
    return limit, 0
  end
  return limit - num(call('GET', calendar_key(name, window, epoch))), ends - now
end

local out = {}
for number, rule in ipairs(cmsgpack.unpack(ARGV[2])) do
  out[2 * number - 1], out[2 * number] = state_of(rule)
end
return out
