-- Whose turn it is, and the lease that goes with it: each act is one step for whoever else asks. See turns.py, which
-- sets WINDOW, HEAD_START and LAST_LEVEL before this.

local function turn_of(job) return 'lhcq:turn:' .. job end
local function todo_of(job) return 'lhcq:todo:' .. job end
local function out_of(job) return 'lhcq:out:' .. job end

-- A place in a circle: the member with the lowest score is next. `now` is the highest score that had its turn.
local function join(circle, member)
  if redis.call('ZSCORE', circle, member) then return end
  local clock = circle .. ':clock'
  if redis.call('EXISTS', circle) == 0 then redis.call('DEL', clock) end
  local now = tonumber(redis.call('HGET', clock, 'now') or '0')
  local order = redis.call('HINCRBY', clock, 'joined', 1)  -- of those that come at once, the first is first
  redis.call('ZADD', circle, string.format('%.17g', now - HEAD_START + order * 1e-7), member)
end

local function had_turn(circle, member)
  local clock, score = circle .. ':clock', tonumber(redis.call('ZSCORE', circle, member))
  if score > tonumber(redis.call('HGET', clock, 'now') or '0') then
    redis.call('HSET', clock, 'now', string.format('%.17g', score))
  end
  redis.call('ZADD', circle, string.format('%.17g', score + 1), member)
end

local function leave(circle, member)
  redis.call('ZREM', circle, member)
  if redis.call('EXISTS', circle) == 0 then redis.call('DEL', circle .. ':clock') end
end

local function leave_turns(job)
  local place = redis.call('HMGET', turn_of(job), 'users', 'user')
  if not place[1] then return end
  local jobs = place[1] .. ':' .. place[2]
  leave(jobs, job)
  if redis.call('EXISTS', jobs) == 0 then leave(place[1], place[2]) end
end

local function forget(job)
  leave_turns(job)
  redis.call('DEL', turn_of(job), todo_of(job), out_of(job))
  redis.call('SREM', 'lhcq:published', job)
end

local function next_of(job)  -- what is left of a job begins with a number, a range 'a-b', or the key of a unit
  local entry = redis.call('LPOP', todo_of(job))
  if not entry then return nil end
  local first, last = string.match(entry, '^(%d+)-(%d+)$')
  if not first then return entry end
  if tonumber(first) + 1 < tonumber(last) then
    redis.call('LPUSH', todo_of(job), string.format('%d-%d', first + 1, last))
  elseif tonumber(first) < tonumber(last) then
    redis.call('LPUSH', todo_of(job), last)
  end
  return first
end

local function may_begin(job)
  local most = tonumber(redis.call('HGET', turn_of(job), 'most') or '0')
  return most == 0 or redis.call('SCARD', out_of(job)) < most
end

local function take_of_user(users, user)
  local jobs = users .. ':' .. user
  local at = 0
  while true do
    local job = redis.call('ZRANGE', jobs, at, at)[1]
    if not job then return nil end
    if may_begin(job) then
      local member = next_of(job)
      if member then
        redis.call('SADD', out_of(job), member)
        had_turn(users, user)
        had_turn(jobs, job)
        if redis.call('EXISTS', todo_of(job)) == 0 then leave_turns(job) end
        return {job, member, redis.call('HGET', turn_of(job), 'chord') or ''}
      end
      leave(jobs, job)
    else
      at = at + 1
    end
  end
end

local function take(queue)
  for level = 0, LAST_LEVEL do
    local users = 'lhcq:turns:' .. queue .. ':' .. level
    for _, user in ipairs(redis.call('ZRANGE', users, 0, -1)) do
      local taken = take_of_user(users, user)
      if taken then return taken end
      if redis.call('EXISTS', users .. ':' .. user) == 0 then leave(users, user) end
    end
  end
  return nil
end

local function release(queue, most)  -- who releases at once does not see the others' messages yet, so each few
  local released = {}
  for _ = 1, math.min(most, WINDOW - redis.call('LLEN', queue)) do
    local taken = take(queue)
    if not taken then break end
    for _, value in ipairs(taken) do table.insert(released, value) end
  end
  return released
end

local acts = {}

-- Have what is left of a job wait for its turns: numbers, ranges of them and keys of units, each after a blank.
function acts.enter(job, queue, level, user, most, chord, done, anew, entries)
  if anew == '0' and redis.call('EXISTS', turn_of(job)) == 1 then return 0 end
  forget(job)
  redis.call('SADD', 'lhcq:published', job)
  if entries == '' then return 1 end
  local users = 'lhcq:turns:' .. queue .. ':' .. level
  redis.call('HSET', turn_of(job), 'users', users, 'user', user, 'most', most, 'chord', chord, 'done', done)
  for entry in string.gmatch(entries, '%S+') do redis.call('RPUSH', todo_of(job), entry) end
  join(users, user)
  join(users .. ':' .. user, job)
  return 1
end

acts.forget = forget

function acts.release(queue) return release(queue, WINDOW) end

-- Take the lease on a unit, if nobody has it, and count the attempt; without a job it is the lease alone.
function acts.claim(lease, token, milliseconds, job, unit, queue, latest)
  if redis.call('PTTL', lease) > tonumber(milliseconds) then redis.call('DEL', lease) end  -- the clock was set back
  if redis.call('GET', lease) == token then  -- asked again by the client, to which no answer came; it is counted already
    return {job ~= '' and redis.call('HGET', 'lhcq:attempts:' .. job, unit) or 1}
  end
  if not redis.call('SET', lease, token, 'NX', 'PX', milliseconds) then return {0} end
  if job == '' then return {1} end
  redis.call('HSET', 'lhcq:latest:' .. job, unit, latest)
  return {redis.call('HINCRBY', 'lhcq:attempts:' .. job, unit, 1), unpack(release(queue, 2))}
end

-- Extend a lease, which may have expired since: then it is taken again, unless somebody began the unit in between, as the
-- attempts tell. Of a unit whose attempts are not counted it is, as long as nobody else has it.
function acts.extend(lease, token, milliseconds, job, unit, attempts)
  local holder = redis.call('GET', lease)
  if holder and holder ~= token then return 0 end
  if not holder and job ~= '' and redis.call('HGET', 'lhcq:attempts:' .. job, unit) ~= attempts then return 0 end
  redis.call('SET', lease, token, 'PX', milliseconds)
  return 1
end

-- Give the lease back, unless it is another's by now, and note how the attempt ended.
acts['end'] = function(lease, token, job, unit, queue, member, how)
  if redis.call('GET', lease) == token then redis.call('DEL', lease) end
  if job == '' then return {} end
  local attempts, latest = 'lhcq:attempts:' .. job, 'lhcq:latest:' .. job
  if how == 'done' or how == 'untried' and redis.call('HINCRBY', attempts, unit, -1) <= 0 then
    redis.call('HDEL', attempts, unit)
    redis.call('HDEL', latest, unit)
  end
  if how == 'done' or how == 'given up' then
    local was_out = redis.call('SREM', out_of(job), member) == 1
    if was_out and how == 'done' then redis.call('HINCRBY', turn_of(job), 'done', 1) end
  end
  return release(queue, 1)
end

return acts[ARGV[1]](unpack(ARGV, 2))
