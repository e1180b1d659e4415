-- Nodes that serve at the same time, and how far each has read. `epoch` of the cluster
-- grows with each change that nodes must know, `authorities` is that of the last change of
-- issuers and profiles, `epoch` of a key that of its last change. Leases end by the clock
-- of the database.
CREATE TABLE cluster (
    id          INTEGER NOT NULL PRIMARY KEY,
    epoch       INTEGER NOT NULL,
    authorities INTEGER NOT NULL
) STRICT;

CREATE TABLE nodes (
    id             BLOB    NOT NULL PRIMARY KEY,
    name           TEXT    NOT NULL,
    log_id         BLOB    NOT NULL,
    acknowledged   INTEGER NOT NULL,
    lease_until_ms INTEGER NOT NULL
) STRICT;

-- Since when the primary version is it, and the epoch in which it became it.
ALTER TABLE keys ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0;
ALTER TABLE keys ADD COLUMN promoted_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE keys ADD COLUMN promoted_epoch INTEGER NOT NULL DEFAULT 0;
UPDATE keys SET promoted_ms = (SELECT created_ms FROM key_versions
    WHERE key_id = keys.id AND number = keys.primary_version);
CREATE INDEX keys_epoch ON keys (epoch);
