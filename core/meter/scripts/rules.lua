-- Limits: what is counted, and how much of it is left. A rule is {kind, name, limit, hard, window id, start, end, ...};
-- its name is KIND:COUNTER: rules of one name share what was used.
local SUBS = 120
local WINDOW_MS = {requests_per_second = 1000, requests_per_minute = 60000}
local CALENDAR = {tokens_per_month = 'tokens', spend_per_day = 'nano', spend_per_month = 'nano'}

-- A sliding window of 120 sub-windows, the oldest counted in proportion to what of it is still inside. Answers what is
-- used, the sub-window now, its counts by sub-window, the newest of them, and the fields that have left, if any.
local function window_counts(name, window)
  local index = math.floor(now * SUBS / window)
  local oldest = index - SUBS
  local used, counts, newest, gone = 0, {}, nil, nil
  local fields = call('HGETALL', base .. 'u:' .. name)
  for i = 1, #fields, 2 do
    local at, count = tonumber(fields[i]), tonumber(fields[i + 1])
    if at > oldest then
      used = used + count
    elseif at == oldest then
      used = used + count * (1 - (now * SUBS % window) / window)
    else
      gone = gone or {}
      gone[#gone + 1] = fields[i]
    end
    if at >= oldest then
      counts[at] = count
      if not newest or at > newest then
        newest = at
      end
    end
  end
  return used, index, counts, newest, gone
end

local function window_reset_ms(window, newest)
  return newest and math.ceil((newest + SUBS + 1) * (window / SUBS) - now) or 0
end

-- When will enough have left the window? Walk from the oldest sub-window on.
local function window_retry_ms(window, index, counts, excess)
  local sub = window / SUBS
  for at = index - SUBS, index do
    local count, starts = counts[at] or 0, (at + SUBS) * sub
    if at == index - SUBS then
      count, starts = count * (1 - (now * SUBS % window) / window), now
    end
    if count >= excess then
      return math.ceil(starts - now + excess / (counts[at] or 1) * sub)
    end
    excess = excess - count
  end
  return window
end

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
    call('INCRBY', key, int(amount))
  end
end
