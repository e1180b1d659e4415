-- x'' is an empty blob here and a bit string to PostgreSQL: a condition that both read.
DROP INDEX acme_orders_replaces;
CREATE INDEX acme_orders_replaces ON acme_orders (replaces) WHERE length(replaces) > 0;
