-- A mix of what a database does: inserts in a transaction, indexes, joins, aggregates, windows, updates and deletes.
CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT NOT NULL, city TEXT NOT NULL);
CREATE TABLE purchase (id INTEGER PRIMARY KEY, customer INTEGER REFERENCES customer, amount REAL, day INTEGER, note TEXT);
BEGIN;
WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < 400)
INSERT INTO customer SELECT n, 'customer ' || n, 'city ' || (n * 7919 % 37) FROM number;
WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < 6000)
INSERT INTO purchase SELECT n, n * 7907 % 400 + 1, n * 7717 % 10007 / 100.0, n * 7873 % 365, 'note ' || hex(n * 104729)
FROM number;
COMMIT;
CREATE INDEX purchase_customer ON purchase (customer);
CREATE INDEX purchase_day ON purchase (day, amount);
SELECT city, count(*), round(sum(amount), 2), max(day) FROM customer JOIN purchase ON customer.id = purchase.customer
GROUP BY city ORDER BY 3 DESC LIMIT 5;
SELECT count(*) FROM purchase WHERE note LIKE '%3F%';
SELECT name, total FROM (SELECT customer, sum(amount) AS total, rank() OVER (ORDER BY sum(amount) DESC) AS place
FROM purchase GROUP BY customer) JOIN customer ON customer.id = customer WHERE place <= 3 ORDER BY place;
UPDATE purchase SET amount = amount * 1.1 WHERE day BETWEEN 100 AND 150;
DELETE FROM purchase WHERE customer IN (SELECT id FROM customer WHERE city = 'city 5');
SELECT day / 30 AS month, count(*), round(avg(amount), 3) FROM purchase GROUP BY month ORDER BY month;
SELECT count(*) FROM purchase AS a JOIN purchase AS b ON a.day = b.day AND a.amount < b.amount;
WITH RECURSIVE step(n, x) AS (SELECT 1, 27 UNION ALL SELECT n + 1, iif(x % 2, 3 * x + 1, x / 2) FROM step WHERE x > 1)
SELECT max(n), max(x) FROM step;
