-- Requests per second and per minute: an exact log. It grows at its end by entries of 16 bytes, (slot, requests so far),
-- one for each slot of a thousandth of the window in which anything was admitted. Those of a slot count until its last
-- millisecond has left. The same as core/queue/memory/request_log.py.
local WINDOW_MS = {requests_per_second = 1000, requests_per_minute = 60000}
local SLOTS, ENTRY_BYTES, TAIL_ENTRIES, DEAD_SPARE = 1000, 16, 64, 64

-- The log as it stands now: its entries, the first of them that still counts, and what is used.
local function read_log(name, window)
  local key, slot_ms = base .. 'n:' .. name, window / SLOTS
  local tail = call('GETRANGE', key, -TAIL_ENTRIES * ENTRY_BYTES, -1)
  local in_tail = #tail / ENTRY_BYTES
  local count = in_tail < TAIL_ENTRIES and in_tail or call('STRLEN', key) / ENTRY_BYTES
  local earlier = count - in_tail

  local function entry(i)
    if i > earlier then
      return struct.unpack('>dd', tail, (i - earlier - 1) * ENTRY_BYTES + 1)
    end
    return struct.unpack('>dd', call('GETRANGE', key, (i - 1) * ENTRY_BYTES, i * ENTRY_BYTES - 1))
  end

  -- The first from `low` on with a slot, or a total, of at least so much; count + 1 if there is none.
  local function first_of(low, slot_min, total_min)
    local high = count + 1
    while low < high do
      local middle = math.floor((low + high) / 2)
      local slot, total = entry(middle)
      if slot >= slot_min and total >= total_min then
        high = middle
      else
        low = middle + 1
      end
    end
    return low
  end

  local log = {key = key, window = window, slot_ms = slot_ms, count = count, first = 1, before = 0, used = 0, slot = -1,
               total = 0, entry = entry, first_of = first_of}
  if count > 0 then
    log.slot, log.total = entry(count)
    local oldest = math.floor((now - window + 1) / slot_ms)
    -- No slot has two entries, so those that count cannot begin before this one; in a busy log they begin with it.
    local low = math.max(1, count - math.max(0, log.slot - oldest))
    log.first = entry(low) >= oldest and low or first_of(low + 1, oldest, 0)
    if log.first > 1 then
      log.before = select(2, entry(log.first - 1))
    end
    log.used = log.total - log.before
  end
  return log
end

local function slot_now(log)
  return math.max(math.floor(now / log.slot_ms), log.slot)
end

local function leaves_in_ms(log, slot)
  return (slot + 1) * log.slot_ms + log.window - 1 - now
end

-- When will so many of the oldest have left?
local function log_retry_ms(log, excess)
  return leaves_in_ms(log, (log.entry(log.first_of(log.first, 0, log.before + excess))))
end

local function log_reset_ms(log)
  return log.used > 0 and leaves_in_ms(log, log.slot) or 0
end

-- One more request. Kept for two windows from the first entry in each half of one: never less than one and a half.
local function log_add(log)
  local slot, dead = slot_now(log), log.first - 1
  local entry = struct.pack('>dd', slot, log.total + 1)
  if slot == log.slot then
    call('SETRANGE', log.key, (log.count - 1) * ENTRY_BYTES, entry)
  elseif dead > log.count - dead + DEAD_SPARE then
    local live = call('GETRANGE', log.key, (dead - 1) * ENTRY_BYTES, -1)  -- and the last dead one: what was before
    call('SET', log.key, live .. entry, 'PX', 2 * log.window)
  else
    call('APPEND', log.key, entry)
    if math.floor(2 * slot / SLOTS) > math.floor(2 * log.slot / SLOTS) then
      call('PEXPIRE', log.key, 2 * log.window)
    end
  end
end
