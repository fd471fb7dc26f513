-- A worker's last word. ARGV: now, request, attempt, worker, outcome, prompt, completion, cached, first_token_ms, end,
-- 1 if the end holds the whole answer.
-- Answers {accepted, prompt, completion, cached, cost_nano}.
local id, attempt, worker, outcome = ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]
local record = read_record(id)
if not record or record.s ~= 'running' or record.w ~= worker or record.a ~= attempt then
  call('SREM', base .. 'wc:' .. worker, id)
  return {0, 0, 0, 0, 0}
end
if record.cm then
  call('SREM', base .. 'wc:' .. worker, id)
end
if record.cm and outcome == 'finished' then
  outcome = 'cancelled'  -- its worker had not seen the cancel yet
end
local counted = {prompt = tonumber(ARGV[6]), completion = tonumber(ARGV[7]), cached = tonumber(ARGV[8])}
local whole = ARGV[11] == '1' and ARGV[10] ~= ''
local billed = settle(id, record, outcome, counted, ARGV[10], whole, tonumber(ARGV[9]))
return {1, billed.prompt, billed.completion, billed.cached, billed.cost}
