-- A running request wants more output covered. ARGV: now, request, attempt, worker, output_tokens.
-- Answers {accepted, covered tokens, what refused the rest}.
local id, attempt, worker, asked = ARGV[2], tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])
local record = read_record(id)
if not record or record.s ~= 'running' or record.w ~= worker or record.a ~= attempt then
  return {0, 0, ''}
end
if asked <= record.out then
  return {1, record.out, ''}
end
local epoch, open = epoch_now()
if not open then
  return {1, record.out, 'epoch'}
end
local meta, price = record.meta, price_at(record.meta.prices, record.adm)
local wallet = wallet_of(meta.org, epoch)
-- A record of an older epoch holds nothing here yet: the whole is reserved anew.
local held = record.ep == epoch and record.res or 0
local counted = record.ce == epoch
local covered, refused_by = asked, ''

local function cost_of(output)
  return cost_nano(meta.pt, 0, output, price[2], price[3], price[4])
end

local function bound_tokens(rule, used)
  local room = math.max(0, rule[3] - used)
  if covered - record.out > room then
    covered, refused_by = record.out + room, rule[1]
  end
end

-- Calendar counters {kind, key}, each once. What is not counted bounds nothing; soft rules are counted only.
local counters, seen = {}, {}
local money, money_by = wallet.credit, 'credit'
for _, rule in ipairs(meta.rules) do
  local name, window = rule[2], CALENDAR[rule[1]] and window_at(rule, record.adm)
  local key = window and calendar_key(name, window, epoch)
  local used = key and tonumber(call('GET', key))
  if used and not seen[name] then
    seen[name] = true
    counters[#counters + 1] = {rule[1], key}
  end
  if used and rule[4] then
    if rule[1] == 'tokens_per_month' then
      bound_tokens(rule, used)
    elseif rule[3] - used < money then
      money, money_by = rule[3] - used, rule[1]
    end
  end
end

-- The most tokens that the money reaches for; below what is covered already: none more.
local function afford()
  local low, high = record.out, covered
  while low < high do
    local middle = math.ceil((low + high) / 2)
    if cost_of(middle) - held <= money then
      low = middle
    else
      high = middle - 1
    end
  end
  return low
end

local more = cost_of(covered) - held
if more > 0 and more > money then
  covered, refused_by = afford(), money_by
  more = cost_of(covered) - held
  if refused_by == 'credit' then
    local needed = cost_of(asked) - held - (covered > record.out and more or 0)
    if needed > num(call('HGET', base .. 'hungry', meta.org)) then
      call('HSET', base .. 'hungry', meta.org, int(needed))
    end
    ring(base .. 'hbell')
  end
end
if covered == record.out then
  return {1, covered, refused_by}
end

local tokens = covered - record.out
if more > 0 then
  save_wallet(meta.org, epoch, {credit = wallet.credit - more, resv = wallet.resv + more})
end
if counted then
  for _, counter in ipairs(counters) do
    call('INCRBY', counter[2], int(counter[1] == 'tokens_per_month' and tokens or more))
  end
end
local taken = {}
for _, rule in ipairs(meta.rules) do
  if rule[1] == 'tokens_per_minute' and not taken[rule[2]] then
    taken[rule[2]] = true
    bucket_set(rule[2], rule[3], bucket_level(rule[2], rule[3]) - tokens)
  end
end
call('HSET', base .. 'r:' .. id, 'out', int(covered), 'res', int(held + more))
if record.ep ~= epoch then
  call('HSET', base .. 'r:' .. id, 'ep', int(epoch), 'ce', int(record.ce))
end
return {1, covered, refused_by}
