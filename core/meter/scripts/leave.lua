-- A drained worker ends its lease. ARGV: now, worker. Answers id, submitter, attempt for what it still held.
return lose_worker(ARGV[2], 0)
