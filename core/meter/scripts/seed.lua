-- Begin a calendar counter of the current epoch, unless it is there. ARGV: now, kind:counter, window id, its end, used.
local KEPT_AFTER_MS = 3 * 86400000
local epoch = epoch_now()
local left_ms = tonumber(ARGV[4]) + KEPT_AFTER_MS - now
if epoch > 0 and left_ms > 0 then
  call('SET', calendar_key(ARGV[2], ARGV[3], epoch), ARGV[5], 'PX', int(left_ms), 'NX')
end
return 1
