CREATE TABLE tenants (
    id   BLOB NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE keys (
    id              BLOB    NOT NULL PRIMARY KEY,
    tenant_id       BLOB    NOT NULL REFERENCES tenants (id),
    name            TEXT    NOT NULL,
    spec            TEXT    NOT NULL,
    labels          TEXT    NOT NULL,
    primary_version INTEGER NOT NULL,
    created_ms      INTEGER NOT NULL,
    revision        INTEGER NOT NULL,
    UNIQUE (tenant_id, name)
) STRICT;

CREATE TABLE key_versions (
    key_id         BLOB    NOT NULL REFERENCES keys (id),
    number         INTEGER NOT NULL,
    state          TEXT    NOT NULL,
    object_id      BLOB    NOT NULL UNIQUE,
    proof          BLOB    NOT NULL,
    token_serial   TEXT    NOT NULL,
    created_ms     INTEGER NOT NULL,
    wraps_reserved INTEGER NOT NULL,
    PRIMARY KEY (key_id, number)
) STRICT;

-- What was about to be generated in the HSM. A row that is left over after a crash
-- names the object that may be on the token without belonging to any key.
CREATE TABLE intents (
    object_id  BLOB    NOT NULL PRIMARY KEY,
    tenant_id  BLOB    NOT NULL,
    key_id     BLOB    NOT NULL,
    key_name   TEXT    NOT NULL,
    number     INTEGER NOT NULL,
    created_ms INTEGER NOT NULL
) STRICT;

-- Single facts about the appliance: genesis, canary key, audit anchor.
CREATE TABLE facts (
    name  TEXT NOT NULL PRIMARY KEY,
    value BLOB NOT NULL
) STRICT;
