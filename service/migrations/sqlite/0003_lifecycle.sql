-- Rules and a floor for each key; a time of destruction and of last use for each
-- version. 0 is "never".
ALTER TABLE keys ADD COLUMN rules TEXT NOT NULL DEFAULT '{}';
ALTER TABLE keys ADD COLUMN minimum_version INTEGER NOT NULL DEFAULT 1;
ALTER TABLE key_versions ADD COLUMN destroy_at_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE key_versions ADD COLUMN protected_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE key_versions ADD COLUMN processed_ms INTEGER NOT NULL DEFAULT 0;
