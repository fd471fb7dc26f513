-- Admission: all or nothing. ARGV: now, admission (msgpack), job (msgpack).
-- Answers {1, admitted_ms, reserved_nano, queue_wait_ms, price version, credit_left_nano, remaining, reset_ms, ...} with a
-- pair for each rule; or {0, by, rule, scope, limit, remaining, retry_ms, number of the rule, reserved_nano} with retry_ms -1
-- where time does not help; or {2, request, same body, streamed} where the claim was made before.
local meta = cmsgpack.unpack(ARGV[2])
local tier, org, id = meta.tier, meta.org, meta.id
local USAGE_BACKLOG_MAX = 200000
local CLAIM_KEPT_MS = 86400000
local OPEN_RETRY_MS = 1000

local function refuse(by, rule, scope, limit, remaining, retry_ms, number, reserved)
  return {0, by, rule, scope, limit, math.max(0, remaining), retry_ms, number or 0, reserved or 0}
end

local epoch, open = epoch_now()
local wallet = wallet_of(org, epoch)
if wallet.gen > meta.gen then
  return refuse('stale', 'generation', 'organisation', wallet.gen, 0, 0)
end

local function refuse_credit(needed)
  return refuse('credit', 'credit', 'organisation', needed, wallet.credit, -1, 0, wallet.resv)
end

-- The answer outlived its gateway and nobody paid: who fetches it does. Answers a refusal, or nil.
local function pay_for_kept(first)
  local unpaid, kept = call('GET', base .. 'f:' .. first), call('GET', base .. 'e:' .. first)
  if not unpaid or not kept then
    return nil
  end
  if not open then
    return refuse('epoch', 'epoch', 'cell', epoch, 0, 1000)
  end
  local event = cmsgpack.unpack(unpaid)
  local prompt, completion, cached, cost = event[10], event[11], event[12], event[14]
  if cost > 0 and wallet.credit < cost then
    return refuse_credit(cost)
  end
  if cost > 0 then
    wallet.credit = wallet.credit - cost
    save_wallet(org, epoch, wallet)
  end
  local seen = {}
  for _, rule in ipairs(meta.rules) do
    local name, window = rule[2], CALENDAR[rule[1]] and window_at(rule, now)
    if window and not seen[name] then
      seen[name] = true
      add_if_counted(calendar_key(name, window, epoch), rule[1] == 'tokens_per_month' and prompt + completion or cost)
    end
  end
  event[19], event[20] = now, epoch
  call('XADD', base .. 'usage', '*', 'u', cmsgpack.pack(event))
  local attempt, _, _, _, _, _, ended = unpack(cmsgpack.unpack(kept))
  call('SET', base .. 'e:' .. first, cmsgpack.pack({attempt, 'finished', prompt, completion, cached, cost, ended}),
    'KEEPTTL')
  call('DEL', base .. 'f:' .. first)
end

if meta.cl then
  local made = call('GET', base .. 'i:' .. meta.cl[1])
  if made then
    local first, streamed, digest = unpack(cmsgpack.unpack(made))
    local same_body = digest == meta.cl[2]
    return same_body and pay_for_kept(first) or {2, first, same_body and 1 or 0, streamed and 1 or 0}
  end
end

if not open then
  return refuse('epoch', 'epoch', 'cell', epoch, 0, 1000)
end
local price = price_at(meta.prices, now)
if not price then
  return refuse('stale', 'price', 'tier', 0, 0, 0)
end
for number, rule in ipairs(meta.rules) do
  if CALENDAR[rule[1]] and not window_at(rule, now) then
    return refuse('stale', rule[1], '', rule[3], 0, 0, number)
  end
end
if call('XLEN', base .. 'usage') > USAGE_BACKLOG_MAX then
  return refuse('backlog', 'usage_backlog', 'cell', USAGE_BACKLOG_MAX, 0, 1000)
end
local wait_ms = expected_wait_ms(tier)
if call('ZCARD', base .. 'age:' .. tier) >= meta.qmax then
  return refuse('queue_full', 'queue_jobs', 'tier', meta.qmax, 0, math.max(1000, wait_ms))
end
if wait_ms > meta.wait then
  return refuse('queue_slow', 'queue_wait_ms', 'tier', meta.wait, 0, math.max(1000, wait_ms))
end

local reserved = cost_nano(meta.pt, 0, meta.out, price[2], price[3], price[4])
local reserved_tokens = meta.pt + meta.out
local UNITS = {tokens = reserved_tokens, nano = reserved}

-- Each check answers remaining and reset_ms after this request, and what reserving it needs; or a refusal instead.
local function check_window(rule, number)
  local limit, log = rule[3], read_log(rule[2], WINDOW_MS[rule[1]])
  if rule[4] and log.used + 1 > limit then
    local retry = limit > 0 and log_retry_ms(log, log.used + 1 - limit) or -1
    return refuse('rule', rule[1], '', limit, limit - log.used, retry, number)
  end
  return nil, limit - log.used - 1, leaves_in_ms(log, slot_now(log)), log
end

local function check_bucket(rule, number)
  local limit = rule[3]
  local level = bucket_level(rule[2], limit)
  local need = math.min(reserved_tokens, limit)
  if rule[4] and (level < need or limit <= 0) then
    local retry = limit > 0 and math.ceil((need - level) * 60000 / limit) or -1
    return refuse('rule', rule[1], '', limit, math.floor(level), retry, number)
  end
  level = level - reserved_tokens
  return nil, math.floor(level), bucket_reset_ms(limit, level), level
end

local function check_open(rule, number)
  local left = rule[3] - num(call('HGET', base .. 'conc', rule[2]))
  if rule[4] and left < 1 then
    return refuse('rule', rule[1], '', rule[3], 0, OPEN_RETRY_MS, number)
  end
  return nil, left - 1, 0
end

local function check_calendar(rule, number)
  local window, ends = window_at(rule, now)
  local key, need = calendar_key(rule[2], window, epoch), UNITS[CALENDAR[rule[1]]]
  local used = call('GET', key)
  if not used then
    return refuse('unseeded', rule[1], '', rule[3], 0, 0, number)
  end
  local left = rule[3] - tonumber(used)
  if rule[4] and need > 0 and need > left then
    return refuse('rule', rule[1], '', rule[3], left, rule[1] == 'tokens_per_month' and ends - now or -1, number)
  end
  return nil, left - need, ends - now, key
end

local CHECKS = {
  requests_per_second = check_window, requests_per_minute = check_window, tokens_per_minute = check_bucket,
  concurrency = check_open, tokens_per_month = check_calendar, spend_per_day = check_calendar,
  spend_per_month = check_calendar}
local answers, plans = {}, {}
for number, rule in ipairs(meta.rules) do
  local refusal, remaining, reset, plan = CHECKS[rule[1]](rule, number)
  if refusal then
    return refusal
  end
  answers[2 * number - 1], answers[2 * number], plans[number] = remaining, reset, plan
end
if reserved > 0 and wallet.credit < reserved then
  return refuse_credit(reserved)
end

-- From here on nothing refuses. What rules share is counted once.
local counted = {}
for number, rule in ipairs(meta.rules) do
  local kind, name, plan = rule[1], rule[2], plans[number]
  if not counted[name] then
    counted[name] = true
    if WINDOW_MS[kind] then
      log_add(plan)
    elseif kind == 'tokens_per_minute' then
      bucket_set(name, rule[3], plan)
    elseif kind == 'concurrency' then
      call('HINCRBY', base .. 'conc', name, 1)
    else
      call('INCRBY', plan, UNITS[CALENDAR[kind]])
    end
  end
end
local left = -1
if reserved > 0 then
  left = wallet.credit - reserved
  call('HSET', base .. 'o:' .. org, 'credit', left, 'resv', wallet.resv + reserved)
end
if meta.cl then
  call('SET', base .. 'i:' .. meta.cl[1], cmsgpack.pack({id, meta.str, meta.cl[2]}), 'PX', CLAIM_KEPT_MS)
end
if call('HINCRBY', base .. 'act:' .. tier, org, 1) == 1 then
  call('HSET', base .. 'wt:' .. tier, org, meta.weight)
  call('HINCRBY', base .. 't:' .. tier, 'aw', meta.weight)
end
local seq = call('HINCRBY', base .. 't:' .. tier, 'seq', 1)
call('HSET', base .. 'r:' .. id, 's', 'queued', 'a', 1, 'k', 0, 'adm', now, 'seq', seq, 'res', reserved, 'ep', epoch,
  'm', ARGV[2], 'j', ARGV[3])
call('ZADD', base .. 'open', meta.dl, id)
enqueue(meta, id, seq, now, 0)
return {1, now, reserved, wait_ms, price[1], left, unpack(answers)}
