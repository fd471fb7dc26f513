-- A tier, or one of its workers, takes nothing more; or does again. ARGV: now, 1 or 0, tier, worker or ''.
-- Answers 0 if there is no such worker.
local tier, worker = ARGV[3], ARGV[4]
if worker ~= '' and call('GET', base .. 'w:' .. worker) ~= tier then
  return 0
end
local field = worker == '' and 't:' .. tier or 'w:' .. worker
if ARGV[2] == '1' then
  call('HSET', base .. 'drained', field, '1')
  return 1
end
call('HDEL', base .. 'drained', field)
for _, each in ipairs(call('HKEYS', base .. 'slots:' .. tier)) do
  ring(base .. 'wb:' .. each)
end
ring(base .. 'bell:' .. tier)
return 1
