-- Billing gives or takes back credit, once for each id. ARGV: now, id, organisation, epoch, amount (below 0: take back up to
-- so much). Answers {accepted, moved}: for a repeated id as before.
local REMEMBERED_MS = 86400000
local COUNTED_MAX = 2 ^ 53
local org, wanted, amount = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local before = call('GET', base .. 'x:' .. ARGV[2])
if before then
  return {1, tonumber(before)}
end
local epoch, open = epoch_now()
if not open or epoch ~= wanted then
  return {0, 0}
end
local wallet = wallet_of(org, epoch)
if amount > COUNTED_MAX - wallet.credit - wallet.resv then
  return redis.error_reply('ERR more credit than can be counted exactly')
end
if amount < 0 then
  amount = -math.max(0, math.min(-amount, wallet.credit))
end
wallet.credit = wallet.credit + amount
save_wallet(org, epoch, wallet)
call('SET', base .. 'x:' .. ARGV[2], int(math.abs(amount)), 'PX', REMEMBERED_MS)
return {1, math.abs(amount)}
