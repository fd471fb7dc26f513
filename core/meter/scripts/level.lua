-- ARGV: now, organisation. Answers {epoch, available, reserved}.
local epoch = epoch_now()
local wallet = wallet_of(ARGV[2], epoch)
return {epoch, wallet.credit, wallet.resv}
