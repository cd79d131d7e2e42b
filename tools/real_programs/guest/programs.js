// A mix of what scripts do: objects, closures, strings, regular expressions, sorting, recursion and floating point.
'use strict';

function randomNumbers(seed) {
  return function () {
    seed = (seed * 1103515245 + 12345) % 2147483648;
    return seed;
  };
}

function Vector(x, y) {
  this.x = x;
  this.y = y;
}
Vector.prototype.add = function (other) {
  return new Vector(this.x + other.x, this.y + other.y);
};
Vector.prototype.scale = function (factor) {
  return new Vector(this.x * factor, this.y * factor);
};

function orbit(steps) {
  var place = new Vector(1, 0), speed = new Vector(0, 1);
  for (var i = 0; i < steps; i++) {
    var distance = Math.sqrt(place.x * place.x + place.y * place.y);
    speed = speed.add(place.scale(-0.01 / (distance * distance * distance)));
    place = place.add(speed.scale(0.01));
  }
  return place.x.toFixed(6) + ' ' + place.y.toFixed(6);
}

function queens(size) {
  function place(row, columns, left, right) {
    if (row === size) return 1;
    var found = 0;
    for (var column = 0; column < size; column++) {
      var bit = 1 << column, up = 1 << (row + column), down = 1 << (row - column + size);
      if (columns & bit || left & up || right & down) continue;
      found += place(row + 1, columns | bit, left | up, right | down);
    }
    return found;
  }
  return place(0, 0, 0, 0);
}

function words(count) {
  var random = randomNumbers(7), text = [];
  for (var i = 0; i < count; i++) {
    var word = '';
    for (var length = 2 + random() % 5; length > 0; length--) word += String.fromCharCode(97 + (random() >> 8) % 6);
    text.push(word);
  }
  return text.join(' ');
}

function frequencies(text) {
  var counts = {};
  text.replace(/[a-z]+/g, function (word) { counts[word] = (counts[word] || 0) + 1; return ''; });
  return Object.keys(counts).sort(function (a, b) {
    return counts[b] - counts[a] || (a < b ? -1 : 1);
  }).slice(0, 5).map(function (word) { return word + ':' + counts[word]; }).join(' ');
}

function sieve(limit) {
  var composite = [], found = 0;
  for (var i = 2; i < limit; i++) {
    if (composite[i]) continue;
    found++;
    for (var j = i * 2; j < limit; j += i) composite[j] = true;
  }
  return found;
}

function fibonacci(n) {
  return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}

var text = words(3000);
print('orbit', orbit(3000));
print('queens', queens(7));
print('words', frequencies(text));
print('vowels', text.match(/[ae][bcd]*/g).length);
print('json', JSON.stringify(JSON.parse(JSON.stringify({ list: text.split(' ').slice(0, 500) }))).length);
print('sieve', sieve(20000));
print('fibonacci', fibonacci(20));
