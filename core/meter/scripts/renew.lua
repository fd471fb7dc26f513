-- ARGV: now, worker, lease_ms. Answers {held, cancelled request, ...}.
local worker = ARGV[2]
if not call('ZSCORE', base .. 'leases', worker) then
  return {0}
end
call('ZADD', base .. 'leases', int(now + tonumber(ARGV[3])), worker)
return {1, unpack(call('SRANDMEMBER', base .. 'wc:' .. worker, 1000))}
