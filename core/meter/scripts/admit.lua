-- Admission: all or nothing. ARGV: now, admission (msgpack), job (msgpack).
-- Answers {1, admitted_ms, reserved_nano, queue_wait_ms, remaining, reset_ms, ...} with a pair for each rule,
-- or {0, by, rule, scope, limit, remaining, retry_ms} with retry_ms -1 where time does not help.
local meta = cmsgpack.unpack(ARGV[2])
local tier, org, id = meta.tier, meta.org, meta.id
local USAGE_BACKLOG_MAX = 200000
local SUB_MS, SUBS = 5000, 12

local generation = call('HGET', base .. 'gen', org)
if generation and tonumber(generation) > meta.gen then
  return {0, 'stale', 'generation', 'organisation', tonumber(generation), 0, 0}
end
if call('XLEN', base .. 'usage') > USAGE_BACKLOG_MAX then
  return {0, 'backlog', 'usage_backlog', 'cell', USAGE_BACKLOG_MAX, 0, 1000}
end
local wait_ms = expected_wait_ms(tier)
if call('ZCARD', base .. 'age:' .. tier) >= meta.qmax then
  return {0, 'queue_full', 'queue_jobs', 'tier', meta.qmax, 0, math.max(1000, wait_ms)}
end
if wait_ms > meta.wait then
  return {0, 'queue_slow', 'queue_wait_ms', 'tier', meta.wait, 0, math.max(1000, wait_ms)}
end

-- requests per minute: 12 sub-windows of 5 s, the oldest counted in proportion to what of it is still inside.
local index = math.floor(now / SUB_MS)
local inside = 1 - (now % SUB_MS) / SUB_MS

local function window_counts(scope)
  local counts, used = {}, 0
  local fields = call('HGETALL', base .. 'rpm:' .. scope)
  for i = 1, #fields, 2 do
    local at, count = tonumber(fields[i]), tonumber(fields[i + 1])
    if at < index - SUBS then
      call('HDEL', base .. 'rpm:' .. scope, fields[i])
    else
      counts[at] = count
      used = used + (at == index - SUBS and count * inside or count)
    end
  end
  return counts, used
end

-- When will enough have left the window? Walk from the oldest sub-window on.
local function window_retry_ms(counts, excess)
  for at = index - SUBS, index do
    local count = counts[at] or 0
    local starts = (at + SUBS) * SUB_MS
    if at == index - SUBS then
      count = count * inside
      starts = now
    end
    if count >= excess then
      return math.ceil(starts - now + excess / (counts[at] or 1) * SUB_MS)
    end
    excess = excess - count
  end
  return SUBS * SUB_MS
end

local reserved_tokens = meta.pt + meta.out
local answers, levels = {}, {}
for number, rule in ipairs(meta.rules) do
  local kind, scope, limit = rule[1], rule[2] .. ':' .. rule[3], rule[4]
  local remaining, reset = 0, 0
  if kind == 'requests_per_minute' then
    local counts, used = window_counts(scope)
    if used + 1 > limit then
      local left = math.max(0, math.floor(limit - used))
      return {0, 'rule', kind, rule[2], limit, left, window_retry_ms(counts, used + 1 - limit)}
    end
    remaining = math.floor(limit - used - 1)
    reset = (index + SUBS + 1) * SUB_MS - now
  elseif kind == 'tokens_per_minute' then
    local level = bucket_level(scope, limit)
    local need = math.min(reserved_tokens, limit)
    if level < need then
      local retry = math.ceil((need - level) * 60000 / limit)
      return {0, 'rule', kind, rule[2], limit, math.max(0, math.floor(level)), retry}
    end
    levels[number] = level - reserved_tokens
    remaining = math.max(0, math.floor(levels[number]))
    reset = math.ceil((limit - levels[number]) * 60000 / limit)
  else
    local open = num(call('HGET', base .. 'conc', scope))
    if open + 1 > limit then
      return {0, 'rule', kind, rule[2], limit, 0, 1000}
    end
    remaining = limit - open - 1
  end
  answers[#answers + 1] = remaining
  answers[#answers + 1] = reset
end

local reserved = cost_nano(meta.pt, 0, meta.out, meta.pi, meta.pc, meta.po)
local available = num(call('HGET', base .. 'credit', org))
if reserved > 0 and available < reserved then
  return {0, 'credit', 'credit', 'organisation', reserved, available, -1}
end

-- From here on nothing refuses.
for number, rule in ipairs(meta.rules) do
  local kind, scope, limit = rule[1], rule[2] .. ':' .. rule[3], rule[4]
  if kind == 'requests_per_minute' then
    if call('HINCRBY', base .. 'rpm:' .. scope, int(index), 1) == 1 then
      call('PEXPIRE', base .. 'rpm:' .. scope, (SUBS + 2) * SUB_MS)
    end
  elseif kind == 'tokens_per_minute' then
    bucket_set(scope, limit, levels[number])
  else
    call('HINCRBY', base .. 'conc', scope, 1)
  end
end
if reserved > 0 then
  call('HINCRBY', base .. 'credit', org, int(-reserved))
end
if call('HINCRBY', base .. 'act:' .. tier, org, 1) == 1 then
  call('HSET', base .. 'wt:' .. tier, org, int(meta.weight))
  call('HINCRBY', base .. 't:' .. tier, 'aw', int(meta.weight))
end
local seq = call('HINCRBY', base .. 't:' .. tier, 'seq', 1)
call('HSET', base .. 'r:' .. id, 's', 'queued', 'a', 1, 'k', 0, 'adm', int(now), 'seq', int(seq), 'res', int(reserved),
  'm', ARGV[2], 'j', ARGV[3])
call('ZADD', base .. 'open', int(meta.dl), id)
enqueue(meta, id, seq, now, 0)
return {1, now, reserved, wait_ms, unpack(answers)}
