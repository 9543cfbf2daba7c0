-- A database without an encoding holds any bytes but NUL.
CREATE TABLE bytes (id int, v text);
INSERT INTO bytes SELECT i, convert_from(decode(lpad(to_hex(i), 2, '0'), 'hex'), 'SQL_ASCII') FROM generate_series(1, 255) i;
CREATE TABLE mixed (v text);
INSERT INTO mixed VALUES (E'caf\xc3\xa9'), (E'caf\xe9'), (E'\\xff');
