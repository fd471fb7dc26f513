-- Admission: all or nothing. ARGV: now, admission (msgpack), job (msgpack).
-- Answers {1, admitted_ms, reserved_nano, queue_wait_ms, remaining, reset_ms, ...} with a pair for each rule,
-- or {0, by, rule, scope, limit, remaining, retry_ms} with retry_ms -1 where time does not help.
local meta = cmsgpack.unpack(ARGV[2])
local tier, org, id = meta.tier, meta.org, meta.id
local USAGE_BACKLOG_MAX = 200000
local SUB_MS, SUBS = 5000, 12

local generation = call('HGET', key('gen'), org)
if generation and tonumber(generation) ~= meta.gen then
  return {0, 'stale', 'generation', 'organisation', tonumber(generation), 0, 0}
end

local backlog = call('XLEN', key('usage'))
if backlog > USAGE_BACKLOG_MAX then
  return {0, 'backlog', 'usage_backlog', 'cell', USAGE_BACKLOG_MAX, 0, 1000}
end

local wait_ms = expected_wait_ms(tier)
local queued = call('ZCARD', key('age', tier))
if queued >= meta.qmax then
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
  local fields = call('HGETALL', key('rpm', scope))
  for i = 1, #fields, 2 do
    local at, count = tonumber(fields[i]), tonumber(fields[i + 1])
    if at < index - SUBS then
      call('HDEL', key('rpm', scope), fields[i])
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
local answers = {}
for _, rule in ipairs(meta.rules) do
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
    remaining = math.max(0, math.floor(level - reserved_tokens))
    reset = math.ceil((limit - level + reserved_tokens) * 60000 / limit)
  else
    local open = num(call('HGET', key('conc'), scope))
    if open + 1 > limit then
      return {0, 'rule', kind, rule[2], limit, 0, 1000}
    end
    remaining = limit - open - 1
  end
  answers[#answers + 1] = remaining
  answers[#answers + 1] = reset
end

local reserved = cost_nano(meta.pt, 0, meta.out, meta.pi, meta.pc, meta.po)
local available = num(call('HGET', key('credit'), org))
if reserved > 0 and available < reserved then
  return {0, 'credit', 'credit', 'organisation', reserved, available, -1}
end

-- From here on nothing refuses.
for _, rule in ipairs(meta.rules) do
  local kind, scope, limit = rule[1], rule[2] .. ':' .. rule[3], rule[4]
  if kind == 'requests_per_minute' then
    call('HINCRBY', key('rpm', scope), int(index), 1)
    call('PEXPIRE', key('rpm', scope), (SUBS + 2) * SUB_MS)
  elseif kind == 'tokens_per_minute' then
    bucket_set(scope, limit, bucket_level(scope, limit) - reserved_tokens)
  else
    call('HINCRBY', key('conc'), scope, 1)
  end
end
if reserved > 0 then
  call('HINCRBY', key('credit'), org, int(-reserved))
end
if call('HINCRBY', key('act', tier), org, 1) == 1 then
  call('HSET', key('wt', tier), org, int(meta.weight))
  call('HINCRBY', key('t', tier), 'aw', int(meta.weight))
end
local seq = call('HINCRBY', key('t', tier), 'seq', 1)
call('HSET', key('r', id), 's', 'queued', 'a', 1, 'k', 0, 'adm', int(now), 'seq', int(seq), 'res', int(reserved))
call('SET', key('m', id), ARGV[2])
call('SET', key('j', id), ARGV[3])
call('ZADD', key('open'), int(meta.dl), id)
enqueue(meta, id, seq, now, 0)
return {1, now, reserved, wait_ms, unpack(answers)}
