-- For wrk: asks for random users, whose ids are in the file that USER_IDS names; prints requests, answers that are
-- no 2xx, and socket errors.
local ids = {}

function init()
  math.randomseed(os.time())
  for id in io.lines(os.getenv("USER_IDS")) do
    ids[#ids + 1] = id
  end
end

function request()
  return wrk.format("GET", "/users/" .. ids[math.random(#ids)])
end

function done(summary)
  local errors = summary.errors
  local sockets = errors.connect + errors.read + errors.write + errors.timeout
  print(string.format("%d %d %d", summary.requests, errors.status, sockets))
end
