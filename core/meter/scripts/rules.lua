-- Limits: what is counted, and how much of it is left. A rule is {kind, name, limit, hard, window id, start, end, ...};
-- its name is KIND:COUNTER: rules of one name share what was used.
local CALENDAR = {tokens_per_month = 'tokens', spend_per_day = 'nano', spend_per_month = 'nano'}

-- tokens per minute: an even bucket, stored as "level time". Answers its level now.
local function bucket_level(name, limit)
  local state = call('GET', base .. 'u:' .. name)
  if not state then
    return limit
  end
  local level, at = string.match(state, '^(%S+) (%S+)$')
  return math.min(limit, tonumber(level) + math.max(0, now - tonumber(at)) * limit / 60000)
end

local function bucket_reset_ms(limit, level)
  return limit > 0 and math.ceil((limit - level) * 60000 / limit) or 0
end

local function bucket_set(name, limit, level)
  if level >= limit then
    call('DEL', base .. 'u:' .. name)
  elseif limit > 0 then
    local full_ms = bucket_reset_ms(limit, level) + 1000
    call('SET', base .. 'u:' .. name, float(level) .. ' ' .. int(now), 'PX', int(full_ms))
  end
end

-- Calendar windows: the one that contains `at`, its id and end; or nil.
local function window_at(rule, at)
  for i = 5, #rule, 3 do
    if rule[i + 1] <= at and at < rule[i + 2] then
      return rule[i], rule[i + 2]
    end
  end
end

local function calendar_key(name, window, epoch)
  return base .. 'u:' .. int(epoch) .. ':' .. name .. ':' .. window
end

local function add_if_counted(key, amount)
  if amount ~= 0 and call('EXISTS', key) == 1 then
    call('INCRBY', key, amount)
  end
end
