-- Until when a version does nothing for a try, when somebody last wanted it in vain, and
-- how many bytes it has sealed. 0 is "not" and "never".
ALTER TABLE key_versions ADD COLUMN brown_out_until_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE key_versions ADD COLUMN refused_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE key_versions ADD COLUMN sealed_bytes INTEGER NOT NULL DEFAULT 0;
