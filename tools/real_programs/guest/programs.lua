-- A mix of what scripts do: tables, closures, strings, patterns, sorting, coroutines and recursion.
local function random_numbers(seed)
  return function()
    seed = (seed * 1103515245 + 12345) % 2147483648
    return seed
  end
end

local Account = {}
Account.__index = Account
function Account.new(owner) return setmetatable({owner = owner, balance = 0}, Account) end
function Account:deposit(amount) self.balance = self.balance + amount end
function Account:withdraw(amount)
  if amount > self.balance then error("not enough", 0) end
  self.balance = self.balance - amount
end

local function accounts(times)
  local random, all, refused = random_numbers(3), {}, 0
  for i = 1, 50 do all[i] = Account.new("owner" .. i) end
  for _ = 1, times do
    local account = all[random() % 50 + 1]
    if random() % 3 == 0 then
      if not pcall(account.withdraw, account, random() % 1000) then refused = refused + 1 end
    else
      account:deposit(random() % 400)
    end
  end
  local sum = 0
  for _, account in ipairs(all) do sum = sum + account.balance end
  return sum, refused
end

local function tree(depth)
  if depth == 0 then return {} end
  return {tree(depth - 1), tree(depth - 1)}
end
local function count(node)
  if not node[1] then return 1 end
  return 1 + count(node[1]) + count(node[2])
end

local function words(number)
  local random, list = random_numbers(11), {}
  for i = 1, number do
    local letters = {}
    for j = 1, 2 + random() % 5 do letters[j] = string.char(97 + random() // 256 % 6) end
    list[i] = table.concat(letters)
  end
  return table.concat(list, " ")
end

local function frequencies(text)
  local counts, keys = {}, {}
  for word in text:gmatch("%a+") do
    if not counts[word] then keys[#keys + 1] = word end
    counts[word] = (counts[word] or 0) + 1
  end
  table.sort(keys, function(a, b) return counts[a] > counts[b] or counts[a] == counts[b] and a < b end)
  local best = {}
  for i = 1, 5 do best[i] = keys[i] .. ":" .. counts[keys[i]] end
  return table.concat(best, " ")
end

local function permutations(list, n, visit)
  n = n or #list
  if n <= 1 then coroutine.yield(list) end
  for i = 1, n do
    list[n], list[i] = list[i], list[n]
    permutations(list, n - 1)
    list[n], list[i] = list[i], list[n]
  end
end

local function mandelbrot(size)
  local inside = 0
  for row = 0, size - 1 do
    for column = 0, size - 1 do
      local cx, cy, x, y = 2.5 * column / size - 2, 2 * row / size - 1, 0.0, 0.0
      local steps = 0
      while x * x + y * y <= 4 and steps < 30 do
        x, y = x * x - y * y + cx, 2 * x * y + cy
        steps = steps + 1
      end
      if steps == 30 then inside = inside + 1 end
    end
  end
  return inside
end

local scale = tonumber(arg[1] or 1)
print("accounts", accounts(20000 * scale))
print("tree", count(tree(12)))
print("words", frequencies(words(6000 * scale)))
print("replaced", #(words(4000 * scale):gsub("[aeiou]+", string.upper):reverse()))
local seen = 0
for list in coroutine.wrap(function() permutations({1, 2, 3, 4, 5, 6, 7}) end) do seen = seen + list[1] end
print("permutations", seen)
print("mandelbrot", mandelbrot(32))
