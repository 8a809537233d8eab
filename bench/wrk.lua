-- wrk's requests: WORKLOAD is read, list, create, bulk, mix or ceiling; IDS a file of ids; RUN makes e-mail addresses
-- unique. Prints one line of JSON at the end.
local workload = os.getenv("WORKLOAD")
local run = os.getenv("RUN")
local headers = { ["Content-Type"] = "application/json", ["X-API-Key"] = os.getenv("KEY") }
local ids = {}
local number = 0

function init()
  math.randomseed(os.time())
  for id in io.lines(os.getenv("IDS")) do
    ids[#ids + 1] = id
  end
end

local function user()
  number = number + 1
  return string.format(
    '{"email":"b%s-%d@example.org","name":"User Number %d","age":36,"city":"London","tags":["maths","news"]}',
    run, number, number)
end

local function read()
  return wrk.format("GET", "/users/" .. ids[math.random(#ids)])
end

local function create()
  return wrk.format("POST", "/users", headers, user())
end

local kinds = {
  read = read,
  create = create,
  ceiling = function() return wrk.format("GET", "/ceiling") end,
  list = function() return wrk.format("GET", "/users?limit=20") end,
  bulk = function()
    local users = {}
    for each = 1, 20 do
      users[each] = user()
    end
    return wrk.format("POST", "/users/bulk", headers, '{"users":[' .. table.concat(users, ",") .. "]}")
  end,
  mix = function()
    if math.random(10) == 1 then
      return create()
    end
    return read()
  end,
}
request = kinds[workload]

function done(summary, latency)
  local errors = summary.errors
  print(string.format(
    '\n{"requests":%d,"rate":%f,"p50":%f,"p99":%f,"p999":%f,"max":%f,"errors":%d,"broken":%d}',
    summary.requests, summary.requests / summary.duration * 1e6,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000, latency:percentile(99.9) / 1000, latency.max / 1000,
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
